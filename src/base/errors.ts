/**
 * One table of all errors a user can meet: code → HTTP status. Codes are Azure's own where Azure has one
 * (CloudError of Microsoft.Compute and of the ARM gateway).
 */
export const ERROR_STATUS = {
  // the request
  AuthenticationFailed: 401,
  AuthorizationFailed: 403,
  BadRequest: 400,
  InvalidParameter: 400,
  InvalidRequestContent: 400,
  InvalidApiVersionParameter: 400,
  MissingApiVersionParameter: 400,
  NoRegisteredProviderFound: 400,
  InvalidSubscriptionId: 400,
  MethodNotAllowed: 405,
  InvalidResourceName: 400,
  InvalidResourceReference: 400,
  InvalidResourceType: 404,
  PropertyChangeNotAllowed: 409,
  RequestEntityTooLarge: 413,
  // resources
  ResourceNotFound: 404,
  ResourceGroupNotFound: 404,
  SubscriptionNotFound: 404,
  NotFound: 404,
  Conflict: 409,
  OperationNotAllowed: 409,
  AttachDiskWhileBeingDetached: 409,
  PreconditionFailed: 412,
  TooManyRequests: 429,
  // points
  VMRestorePointClientError: 409,
  VMRestorePointInternalError: 500,
  VMAgentStatusCommunicationError: 409,
  DiskRestorePointClientError: 409,
  DiskRestorePointUsedByCustomer: 409,
  // the house
  InsufficientSpace: 507,
  DeadlineExceeded: 504,
  HypervisorUnavailable: 503,
  RepositoryUnavailable: 503,
  RepositoryDamaged: 500,
  RepositoryFenced: 503,
  KeyMismatch: 500,
  ServiceUnavailable: 503,
  InternalError: 500,
} as const;

export type ErrorCode = keyof typeof ERROR_STATUS;

/** What else an error can say. `target` names the field; `remedy` what the user should do, as one sentence. */
export interface ErrorExtras {
  readonly target?: string;
  readonly remedy?: string;
  readonly cause?: unknown;
}

/** An error with a code a client can act on. The message is a full sentence; the remedy is appended to it. */
export class StillpointError extends Error {
  override readonly name = "StillpointError";
  readonly code: ErrorCode;
  readonly target: string | undefined;
  readonly remedy: string | undefined;

  constructor(code: ErrorCode, message: string, extras: ErrorExtras = {}) {
    super(extras.remedy ? `${message} ${extras.remedy}` : message, { cause: extras.cause });
    this.code = code;
    this.target = extras.target;
    this.remedy = extras.remedy;
  }

  get status(): number {
    return ERROR_STATUS[this.code];
  }
}

/** For the default branch of an exhaustive switch. */
export function assertNever(value: never): never {
  throw new StillpointError("InternalError", `unexpected value ${JSON.stringify(value)}`);
}
