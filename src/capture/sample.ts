/**
 * Spot checks of what a dirty bitmap calls unchanged. They detect systematic loss (a writer that QEMU does not see, a
 * bitmap that stopped recording), not a single missed chunk.
 */
import { bytes, CHUNK_BYTES } from "../base/index.ts";
import type { DiskWriter } from "../repository/index.ts";
import { type ClassedExtent, chunkRuns } from "./ranges.ts";
import type { CopyDeps, CopySource } from "./source.ts";

export interface Sample {
  readonly chunks: number;
  readonly mismatches: number;
}

const SPREAD_CHUNKS = 64;
const NEIGHBOUR_CHUNKS = 16;
const BUDGET_MS = 250;

/** Compares up to 64 clean chunks spread over the disk and 16 beside dirty ones with the anchor, within 250 ms. */
export async function sampleClean(
  dirty: AsyncIterable<ClassedExtent>,
  source: CopySource,
  writer: DiskWriter,
  deps: CopyDeps,
): Promise<Sample> {
  const endMs = deps.clock.monotonicMs() + BUDGET_MS;
  const candidates = await cleanCandidates(dirty, source, deps);
  const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  let chunks = 0;
  let mismatches = 0;
  for (const chunk of candidates) {
    if (deps.clock.monotonicMs() > endMs) break;
    deps.signal.throwIfAborted();
    const offset = chunk * CHUNK_BYTES;
    const data = buffer.subarray(0, Math.min(CHUNK_BYTES, source.sizeBytes - offset));
    await source.nbd.readInto(bytes(offset), data);
    chunks++;
    if (!(await writer.matchesAnchor(bytes(offset), data))) mismatches++;
  }
  // A damaged range of the anchor never matches; it is read again anyway and is no lie of the bitmap's.
  if (mismatches > 0 && (await writer.damagedRanges()).length > 0) return { chunks, mismatches: 0 };
  return { chunks, mismatches };
}

async function cleanCandidates(
  dirty: AsyncIterable<ClassedExtent>,
  source: CopySource,
  deps: CopyDeps,
): Promise<readonly number[]> {
  const total = Math.ceil(source.sizeBytes / CHUNK_BYTES);
  const wanted = [...new Set(Array.from({ length: SPREAD_CHUNKS }, () => randomBelow(total, deps)))].sort(
    (a, b) => a - b,
  );
  const spread: number[] = [];
  const beside: number[] = [];
  let next = 0;
  let edges = 0;
  for await (const run of chunkRuns(dirty, source.sizeBytes)) {
    if (run.data) continue;
    const first = run.offset / CHUNK_BYTES;
    const last = Math.ceil((run.offset + run.length) / CHUNK_BYTES) - 1;
    for (; next < wanted.length && (wanted[next] as number) <= last; next++)
      if ((wanted[next] as number) >= first) spread.push(wanted[next] as number);
    for (const edge of [first, last]) {
      // Reservoir: every edge has the same chance, in one pass and flat memory.
      edges++;
      if (beside.length < NEIGHBOUR_CHUNKS) beside.push(edge);
      else {
        const slot = randomBelow(edges, deps);
        if (slot < NEIGHBOUR_CHUNKS) beside[slot] = edge;
      }
    }
  }
  return [...new Set([...beside, ...spread])];
}

function randomBelow(limit: number, deps: CopyDeps): number {
  return deps.random.bytes(6).readUIntBE(0, 6) % limit;
}
