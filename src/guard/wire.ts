import { ERROR_STATUS, type ErrorCode, StillpointError } from "../base/index.ts";
import type { GuardEvent } from "./protocol.ts";

/** Spoken by both sides. A side accepts its own number, one lower and one higher. */
export const GUARD_PROTOCOL_VERSION = 1;

/** Lines of the wire. A request is answered by a response with its id; events come in between. */
export interface WireRequest {
  readonly id: number;
  readonly method: string;
  readonly params: unknown;
}

export type WireResponse =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: WireError };

export interface WireNotice {
  readonly event: GuardEvent;
}

export interface WireError {
  readonly code: string;
  readonly message: string;
  readonly target?: string;
  readonly remedy?: string;
}

export const MAX_WIRE_LINE_BYTES = 4 * 1024 * 1024;

export function encodeLine(value: WireRequest | WireResponse | WireNotice): string {
  return `${JSON.stringify(value)}\n`;
}

export function encodeError(error: unknown): WireError {
  if (!(error instanceof StillpointError)) return { code: "InternalError", message: String((error as Error).message) };
  const { code, target, remedy } = error;
  // The message ends with the remedy; the other side appends it again.
  const message = remedy ? error.message.slice(0, -remedy.length - 1) : error.message;
  return { code, message, ...(target ? { target } : {}), ...(remedy ? { remedy } : {}) };
}

export function decodeError({ code, message, target, remedy }: WireError): StillpointError {
  const known = Object.hasOwn(ERROR_STATUS, code) ? (code as ErrorCode) : "InternalError";
  return new StillpointError(known, message, { ...(target ? { target } : {}), ...(remedy ? { remedy } : {}) });
}
