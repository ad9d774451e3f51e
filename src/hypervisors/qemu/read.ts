/**
 * Reading what QEMU answers. An adopted QEMU may be hostile: a value is used only after it was found to be of the
 * expected kind and length, and lists have a bound.
 */
import { type Bytes, bytes, StillpointError } from "../../base/index.ts";

export type Json = Readonly<Record<string, unknown>>;

const MAX_LIST = 4096;
const MAX_TEXT = 4096;

export function object(value: unknown): Json {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  throw strange("an object");
}

export function list(value: unknown): readonly Json[] {
  if (!Array.isArray(value) || value.length > MAX_LIST) throw strange(`a list of at most ${MAX_LIST}`);
  return value.map(object);
}

/** Missing counts as an empty list. */
export function optionalList(value: unknown): readonly Json[] {
  return value === undefined || value === null ? [] : list(value);
}

export function optionalObject(value: unknown): Json {
  return value === undefined || value === null ? {} : object(value);
}

export function text(value: unknown): string {
  if (typeof value === "string" && value.length <= MAX_TEXT) return value;
  throw strange("a text");
}

export function optionalText(value: unknown): string {
  return value === undefined || value === null ? "" : text(value);
}

export function size(value: unknown): Bytes {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return bytes(value as number);
  throw strange("a size");
}

export function flag(value: unknown): boolean {
  if (value === undefined) return false;
  if (typeof value === "boolean") return value;
  throw strange("true or false");
}

function strange(expected: string): StillpointError {
  return new StillpointError("HypervisorUnavailable", `QEMU's answer is not what QEMU answers: expected ${expected}.`);
}
