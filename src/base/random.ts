import { randomBytes, randomUUID } from "node:crypto";

/** The only source of randomness, so that a test can seed it. */
export interface Random {
  /** A lower-case UUID. */
  uuid(): string;
  /** `n` bytes, cryptographically strong in production. */
  bytes(n: number): Buffer;
}

export const systemRandom: Random = { uuid: () => randomUUID(), bytes: (n) => randomBytes(n) };
