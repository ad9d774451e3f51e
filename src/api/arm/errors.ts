import { StillpointError } from "../../base/index.ts";

/** ARM's error envelope. */
export interface ErrorBody {
  readonly error: { readonly code: string; readonly message: string; readonly target?: string };
}

export function envelope(code: string, message: string, target?: string): ErrorBody {
  return { error: { code, message, ...(target === undefined ? {} : { target }) } };
}

/**
 * What any thrown value becomes on the wire. Only StillpointErrors speak to the user; anything else is a defect of
 * ours: the answer carries the request id, the log carries the error.
 */
export function answerFor(
  error: unknown,
  requestId: string,
): { readonly status: number; readonly body: ErrorBody; readonly defect: boolean } {
  if (error instanceof StillpointError)
    return { status: error.status, body: envelope(error.code, error.message, error.target), defect: false };
  return {
    status: 500,
    body: envelope(
      "InternalError",
      `An internal error occurred while the request was served; nothing is known about its outcome. The log has it under request id ${requestId}.`,
    ),
    defect: true,
  };
}

/** How the domain's names of fields are written in a request: the first pattern that matches decides. */
export type WireNames = readonly (readonly [pattern: RegExp, replacement: string])[];

/** Runs a command whose errors name the command's own fields, and has them name the request's members. */
export async function inWireNames<T>(names: WireNames, command: () => Promise<T>): Promise<T> {
  try {
    return await command();
  } catch (error) {
    if (!(error instanceof StillpointError) || error.target === undefined) throw error;
    const { target } = error;
    const known = names.find(([pattern]) => pattern.test(target));
    if (!known) throw error;
    // The remedy is part of the message already.
    throw new StillpointError(error.code, error.message, { target: target.replace(...known), cause: error });
  }
}
