/** The limit of the parts: bare zstd 1, HMAC-SHA256 and AES-256-GCM over the same bytes, each alone on all cores. */
import { createCipheriv, createHmac } from "node:crypto";
import { openSync, readSync } from "node:fs";
import { availableParallelism } from "node:os";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { constants, zstdCompressSync } from "node:zlib";
import { KiB, MiB } from "../../src/base/index.ts";

const FRAME_BYTES = 256 * KiB;
const CHUNK_BYTES = 64 * KiB;
const RUN_BYTES = 4 * MiB;
const CIPHER_SLICE_BYTES = 64 * KiB;

interface Share {
  readonly path: string;
  readonly from: number;
  readonly to: number;
}
/** Milliseconds of each part, reading left out. */
export interface PartTimes {
  readonly zstdMs: number;
  readonly hmacMs: number;
  readonly gcmMs: number;
  readonly compressedBytes: number;
}

/** Seconds each part takes for the whole image on all cores: the slowest worker counts. */
export async function partLimits(path: string, sizeBytes: number): Promise<PartTimes> {
  const workers = availableParallelism();
  const share = Math.ceil(sizeBytes / workers / RUN_BYTES) * RUN_BYTES;
  const results = await Promise.all(
    Array.from({ length: workers }, (_, i) =>
      measure({ path, from: i * share, to: Math.min(sizeBytes, (i + 1) * share) }),
    ),
  );
  const slowest = (pick: (times: PartTimes) => number) => Math.max(...results.map(pick));
  return {
    zstdMs: slowest((t) => t.zstdMs),
    hmacMs: slowest((t) => t.hmacMs),
    gcmMs: slowest((t) => t.gcmMs),
    compressedBytes: results.reduce((sum, t) => sum + t.compressedBytes, 0),
  };
}

function measure(share: Share): Promise<PartTimes> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: share });
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}

function work({ path, from, to }: Share): PartTimes {
  const file = openSync(path, "r");
  const buffer = Buffer.alloc(RUN_BYTES);
  const key = Buffer.alloc(32, 7);
  let zstdMs = 0;
  let hmacMs = 0;
  let gcmMs = 0;
  let compressedBytes = 0;
  let nonce = 0;
  for (let at = from; at < to; at += RUN_BYTES) {
    const run = buffer.subarray(0, readSync(file, buffer, 0, Math.min(RUN_BYTES, to - at), at));
    let start = performance.now();
    for (const chunk of slices(run, CHUNK_BYTES)) createHmac("sha256", key).update(chunk).digest();
    hmacMs += performance.now() - start;
    start = performance.now();
    const frames = [...slices(run, FRAME_BYTES)].map((frame) =>
      zstdCompressSync(frame, { params: { [constants.ZSTD_c_compressionLevel]: 1 } }),
    );
    zstdMs += performance.now() - start;
    start = performance.now();
    for (const frame of frames) {
      compressedBytes += frame.length;
      const iv = Buffer.alloc(12);
      iv.writeUInt32LE(nonce++);
      const cipher = createCipheriv("aes-256-gcm", key, iv);
      for (const slice of slices(frame, CIPHER_SLICE_BYTES)) cipher.update(slice);
      cipher.final();
      cipher.getAuthTag();
    }
    gcmMs += performance.now() - start;
  }
  return { zstdMs, hmacMs, gcmMs, compressedBytes };
}

function* slices(data: Buffer, step: number): Generator<Buffer> {
  for (let at = 0; at < data.length; at += step) yield data.subarray(at, at + step);
}

if (!isMainThread) parentPort?.postMessage(work(workerData as Share));
