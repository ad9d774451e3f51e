import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from "node:crypto";

export const TAG_BYTES = 16;
const NONCE_BYTES = 12;

/** OpenSSL's GCM through Node is fastest when fed in slices of this size (2.5 GB/s a core; 1.8-2.0 with 64 KiB). */
const SLICE_BYTES = 16 * 1024;

/** The 96-bit nonce of the `ordinal`-th message under one key: the ordinal, little-endian, then zeroes. */
export function ordinalNonce(ordinal: number): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.writeUInt32LE(ordinal, 0);
  return nonce;
}

/** A key made ready once for many messages: 2 µs instead of 13 for each. */
export type SealingKey = KeyObject | Uint8Array;

export function sealingKey(key: Uint8Array): SealingKey {
  return createSecretKey(key);
}

/**
 * AES-256-GCM of `plain`, written to `out` as ciphertext and tag; returns the bytes written (`plain.length` + 16).
 * A (key, ordinal) pair must never be used twice: every key here is drawn or derived for one object.
 */
export function sealInto(
  out: Uint8Array,
  key: SealingKey,
  ordinal: number,
  aad: Uint8Array,
  plain: Uint8Array,
): number {
  const cipher = createCipheriv("aes-256-gcm", key, ordinalNonce(ordinal));
  cipher.setAAD(aad);
  let at = 0;
  for (let from = 0; from < plain.length; from += SLICE_BYTES) {
    const piece = cipher.update(plain.subarray(from, Math.min(from + SLICE_BYTES, plain.length)));
    out.set(piece, at);
    at += piece.length;
  }
  cipher.final();
  out.set(cipher.getAuthTag(), at);
  return at + TAG_BYTES;
}

export function seal(key: SealingKey, ordinal: number, aad: Uint8Array, plain: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(plain.length + TAG_BYTES);
  sealInto(out, key, ordinal, aad, plain);
  return out;
}

/** The plaintext of `sealed` (ciphertext and tag), or null when it was not sealed so. Nothing unverified gets out. */
export function unseal(key: SealingKey, ordinal: number, aad: Uint8Array, sealed: Uint8Array): Buffer | null {
  const end = sealed.length - TAG_BYTES;
  if (end < 0) return null;
  const decipher = createDecipheriv("aes-256-gcm", key, ordinalNonce(ordinal), { authTagLength: TAG_BYTES });
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(end));
  const out = Buffer.allocUnsafeSlow(end);
  let at = 0;
  for (let from = 0; from < end; from += SLICE_BYTES) {
    const piece = decipher.update(sealed.subarray(from, Math.min(from + SLICE_BYTES, end)));
    out.set(piece, at);
    at += piece.length;
  }
  try {
    decipher.final();
  } catch {
    return null; // the only error of final() in GCM: the tag does not match
  }
  return out;
}
