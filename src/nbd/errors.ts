import { type ErrorCode, StillpointError } from "../base/index.ts";

/** The server sent what the protocol forbids. The connection is closed: nothing it says can be believed any more. */
export function violation(what: string): StillpointError {
  return new StillpointError("HypervisorUnavailable", `The NBD server broke the protocol: ${what}.`);
}

const ERRNO: Readonly<Record<number, string>> = {
  1: "operation not permitted",
  5: "input/output error",
  12: "out of memory",
  22: "invalid argument",
  28: "no space left on device",
  75: "value too large",
  95: "operation not supported",
  108: "the server is shutting down",
};

/** The server's honest "no" to one request. The connection goes on. */
export function refused(request: string, errno: number, message: string): StillpointError {
  const code: ErrorCode =
    errno === 28 ? "InsufficientSpace" : errno === 108 ? "HypervisorUnavailable" : "InternalError";
  const words = ERRNO[errno] ?? `error ${errno}`;
  return new StillpointError(code, `NBD ${request} failed: ${words}${message ? ` (${printable(message)})` : ""}.`);
}

/** A hostile string made fit for a log: one line, printable ASCII, ≤ 200 characters. */
export function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "?").slice(0, 200);
}

export function closedByUs(): StillpointError {
  return new StillpointError("HypervisorUnavailable", "The NBD connection was closed.");
}
