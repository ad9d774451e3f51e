/**
 * The digest of a disk by its data alone: SHA-256 over offset and bytes of every 64 KiB piece that is not all zeroes,
 * and the size. Says as much as one over all bytes, in a fraction of the time on disks that are mostly empty.
 */
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";

const PIECE_BYTES = 64 * 1024;
const READ_BYTES = 1 << 20;
const ZEROES = Buffer.alloc(PIECE_BYTES);

export interface DataDigest {
  /** In order; `offset` is a multiple of 64 KiB. What is left out is zeroes. */
  add(offset: number, data: Uint8Array): void;
  end(sizeBytes: number): string;
}

export function makeDataDigest(): DataDigest {
  const hash = createHash("sha256");
  const number = Buffer.alloc(8);
  const putNumber = (value: number) => {
    number.writeBigUInt64BE(BigInt(value));
    hash.update(number);
  };
  return {
    add: (offset, data) => {
      for (let at = 0; at < data.byteLength; at += PIECE_BYTES) {
        const piece = data.subarray(at, at + PIECE_BYTES);
        if (ZEROES.compare(piece, 0, piece.byteLength, 0, piece.byteLength) === 0) continue;
        putNumber(offset + at);
        hash.update(piece);
      }
    },
    end: (sizeBytes) => {
      putNumber(sizeBytes);
      return hash.digest("hex");
    },
  };
}

export async function dataDigestOfFile(path: string): Promise<string> {
  const digest = makeDataDigest();
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    for (let at = 0; at < size; at += READ_BYTES) {
      const { bytesRead } = await file.read(buffer, 0, READ_BYTES, at);
      if (bytesRead !== Math.min(READ_BYTES, size - at)) throw new Error(`${path} ends early`);
      digest.add(at, buffer.subarray(0, bytesRead));
    }
    return digest.end(size);
  } finally {
    await file.close();
  }
}
