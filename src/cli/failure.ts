/** What ends a command early, with its exit code: 1 the service refused, 2 the command line or its settings are wrong, 3 not found. */
export class CliFailure extends Error {
  override readonly name = "CliFailure";
  readonly exitCode: 1 | 2 | 3;

  constructor(exitCode: 1 | 2 | 3, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** The service's error as `az` shows it: `(Code) message`. */
export class ApiFailure extends CliFailure {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(status === 404 ? 3 : 1, `(${code}) ${message}`);
    this.status = status;
    this.code = code;
  }
}
