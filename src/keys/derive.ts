import { hkdfSync } from "node:crypto";

/** Every key in the format is 256 bits. */
export const KEY_BYTES = 32;

/** HKDF-SHA256. `purpose` separates keys of different use; it is prefixed with the product and format version. */
export function deriveKey(secret: Uint8Array, salt: Uint8Array, purpose: string): Buffer {
  return Buffer.from(hkdfSync("sha256", secret, salt, `stillpoint/1/${purpose}`, KEY_BYTES));
}
