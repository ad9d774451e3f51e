import type { Brand } from "./ids.ts";

/** A count of bytes or an offset in bytes: a safe integer ≥ 0. */
export type Bytes = Brand<number, "Bytes">;

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

/** The grain of everything Stillpoint tracks: dirty bitmaps, repository chunks, fleece clusters. */
export const CHUNK_BYTES = 64 * KiB;

/** `n` as {@link Bytes}. Throws RangeError when it is no safe integer ≥ 0: a broken size must never travel on. */
export function bytes(n: number | bigint): Bytes {
  const value = Number(n);
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`not a byte count: ${n}`);
  return value as Bytes;
}

/** `n` rounded up to a multiple of `step`. QEMU rounds the length of a raw file up to 512 the same way. */
export function roundUp(n: number, step: number): Bytes {
  return bytes(Math.ceil(n / step) * step);
}
