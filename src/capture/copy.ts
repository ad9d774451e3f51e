/** The background copy of one disk: which extents are read, and the pump that moves them. */
import { type Bytes, bytes, MiB } from "../base/index.ts";
import type { DiskWriter } from "../repository/index.ts";
import { type ClassedExtent, chunkRuns, cut, type Range } from "./ranges.ts";
import { type Sample, sampleClean } from "./sample.ts";
import type { CopyDeps, CopySource } from "./source.ts";

/** Reads of 1 MiB, eight under way: level with nbdcopy on a unix socket, and a bound on memory per disk. */
const READ_BYTES = MiB;
const DEPTH = 8;

/** NBD's status bits of `base:allocation`. HOLE without ZERO is legal and may hold data: only ZERO is skipped. */
const STATE_ZERO = 2;
/** The one bit of a `qemu:dirty-bitmap:` context. */
const STATE_DIRTY = 1;

export interface CopyResult {
  readonly kind: CopySource["kind"];
  readonly fullReason: string | null;
  readonly bytesRead: Bytes;
  readonly sample: Sample;
}

/**
 * Copies the frozen source into `writer`. An increment whose sample of clean extents disagrees with the anchor is not
 * believed: the disk is then read in full and compared. Nothing is durable when it returns.
 */
export async function copyDisk(source: CopySource, writer: DiskWriter, deps: CopyDeps): Promise<CopyResult> {
  if (source.kind !== "incremental") {
    const bytesRead = await pump(source, writer, deps, allocation(source), source.kind === "full-compared");
    return { kind: source.kind, fullReason: null, bytesRead, sample: NO_SAMPLE };
  }
  const dirty = () => dirtyExtents(source);
  const sample = await sampleClean(dirty(), source, writer, deps);
  if (sample.mismatches > 0) {
    const bytesRead = await pump(source, writer, deps, allocation(source), true);
    return {
      kind: "full-compared",
      fullReason: "a sample found changes that the bitmap did not name",
      bytesRead,
      sample,
    };
  }
  const damaged = await writer.damagedRanges();
  const bytesRead = await pump(source, writer, deps, overlay(dirty(), damaged), false);
  return { kind: "incremental", fullReason: null, bytesRead, sample };
}

const NO_SAMPLE: Sample = { chunks: 0, mismatches: 0 };

async function pump(
  source: CopySource,
  writer: DiskWriter,
  deps: CopyDeps,
  extents: AsyncIterable<ClassedExtent>,
  writeZeroes: boolean,
): Promise<Bytes> {
  let doneBytes = 0;
  let readBytes = 0;
  const ranges = reads(source, extents, async (gap) => {
    if (writeZeroes) await writer.zero(gap.offset, gap.length);
    doneBytes += gap.length;
    deps.progress(doneBytes);
  });
  const lane = async () => {
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    for (;;) {
      deps.signal.throwIfAborted();
      const next = await ranges.next();
      if (next.done) return;
      const { offset, length } = next.value;
      const data = buffer.subarray(0, length);
      await source.nbd.readInto(offset, data);
      await writer.write(offset, data);
      readBytes += length;
      doneBytes += length;
      deps.progress(doneBytes);
    }
  };
  const lanes = Array.from({ length: DEPTH }, lane);
  const results = await Promise.allSettled(lanes);
  for (const result of results) if (result.status === "rejected") throw result.reason;
  return bytes(readBytes);
}

async function* reads(
  source: CopySource,
  extents: AsyncIterable<ClassedExtent>,
  onGap: (gap: Range) => Promise<void>,
): AsyncGenerator<Range, undefined> {
  for await (const run of chunkRuns(extents, source.sizeBytes)) {
    if (run.data) yield* cut(run, READ_BYTES);
    else await onGap(run);
  }
  return undefined;
}

async function* allocation(source: CopySource): AsyncGenerator<ClassedExtent> {
  for await (const extent of source.nbd.extents("base:allocation", bytes(0), source.sizeBytes))
    yield { offset: extent.offset, length: extent.length, data: (extent.flags & STATE_ZERO) === 0 };
}

async function* dirtyExtents(source: CopySource): AsyncGenerator<ClassedExtent> {
  const context = `qemu:dirty-bitmap:${source.bitmap}`;
  for await (const extent of source.nbd.extents(context, bytes(0), source.sizeBytes))
    yield { offset: extent.offset, length: extent.length, data: (extent.flags & STATE_DIRTY) !== 0 };
}

/** `extents` with `damaged` ranges (sorted, whole chunks) classed as data: reading them again heals the anchor. */
export async function* overlay(
  extents: AsyncIterable<ClassedExtent>,
  damaged: readonly Range[],
): AsyncGenerator<ClassedExtent> {
  let next = 0;
  for await (const extent of extents) {
    const end = extent.offset + extent.length;
    let at = extent.offset;
    while (at < end) {
      const range = damaged[next];
      const start = range ? Math.max(at, Math.min(end, range.offset)) : end;
      if (start > at) yield { offset: at, length: start - at, data: extent.data };
      at = start;
      if (!range || at >= end) break;
      const stop = Math.min(end, range.offset + range.length);
      if (stop > at) yield { offset: at, length: stop - at, data: true };
      at = Math.max(at, stop);
      if (range.offset + range.length <= end) next++;
      else break;
    }
  }
}
