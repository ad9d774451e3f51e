/**
 * Where the repository's objects lie. Names are relative paths of `a-z 0-9 . - /`, e.g. `packs/3f/3f…`.
 *
 * The contract, held by `conformance.ts` for every adapter:
 * - Objects are written once. No call changes the bytes of an object that exists.
 * - An object is seen under its name whole or not at all, at any moment and after any crash.
 * - What `commit` and `create` reported as done survives a power cut. What they failed to do may be there or not, but
 *   never in part; a failed fsync is reported once by the system and is never asked for again.
 * - `delete` may be undone by a power cut: a deleted object can come back whole. A missing one is fine.
 * - `list` and `size` tell what is there now; an error is never an empty list.
 * - All calls may run at the same time, on the same or different names.
 */
export interface Storage {
  /** Starts an object of unknown length under a name never used before. */
  begin(name: string): Promise<ObjectWriter>;
  /**
   * Creates a small object exclusively, durable when it returns. `same`: it is there with exactly these bytes (and is
   * durable now); `other`: the name is taken by other bytes, nothing was changed.
   */
  create(name: string, content: Uint8Array): Promise<"created" | "same" | "other">;
  /** `length` bytes from `offset`. Throws NotFound for a missing object, RepositoryDamaged for one that is shorter. */
  readRange(name: string, offset: number, length: number): Promise<Buffer>;
  /** A small object whole; null when it is not there. */
  read(name: string): Promise<Buffer | null>;
  size(name: string): Promise<number | null>;
  /** All objects below a folder (`packs/`), in no order. */
  list(folder: string): AsyncIterable<StoredObject>;
  delete(name: string): Promise<void>;
  close(): Promise<void>;
}

export interface StoredObject {
  readonly name: string;
  readonly sizeBytes: number;
}

/** An object being written. Exactly one of `commit` and `abort` ends it. */
export interface ObjectWriter {
  /** The parts one after another. They may be changed again when it resolves. Calls must not overlap. */
  append(parts: readonly Uint8Array[]): Promise<void>;
  /** Durable under its name when it returns. When it fails the object is given up. */
  commit(): Promise<void>;
  /** Nothing of it stays. Never throws. */
  abort(): Promise<void>;
}

const NAME = /^[a-z0-9][a-z0-9.-]*(\/[a-z0-9][a-z0-9.-]*)*$/;

/** Names are ours, never a user's; this holds even when a damaged object names another. */
export function checkName(name: string): string {
  if (!NAME.test(name)) throw new RangeError(`not an object name: ${name}`);
  return name;
}
