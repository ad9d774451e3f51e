/** Pure arithmetic over byte ranges of a disk, in whole chunks. */
import { type Bytes, bytes, CHUNK_BYTES } from "../base/index.ts";

export interface Range {
  readonly offset: Bytes;
  readonly length: Bytes;
}

/** A range that has been classed: `data` must be read, the rest reads as zeroes (or is unchanged, for a bitmap). */
export interface ClassedExtent {
  readonly offset: number;
  readonly length: number;
  readonly data: boolean;
}

/**
 * Whole-chunk runs from extents of any grain (raw files report 4 KiB): a chunk with one byte of data is data. Runs are
 * sorted, disjoint, alternate in class, and cover the disk; the last ends at its end, whole chunk or not.
 * Throws RangeError when the extents are not sorted and adjoining, for then something was skipped.
 */
export async function* chunkRuns(
  extents: AsyncIterable<ClassedExtent>,
  sizeBytes: Bytes,
): AsyncGenerator<Range & { data: boolean }> {
  let expected = 0;
  let start = 0;
  let current: boolean | null = null;
  // The chunk in which the extents read so far end, and whether it holds data.
  for await (const run of snapped(extents, sizeBytes)) {
    if (run.offset !== expected) throw new RangeError(`extents leave a gap at ${expected}`);
    expected = run.offset + run.length;
    if (current === null) current = run.data;
    if (run.data === current) continue;
    yield { offset: bytes(start), length: bytes(run.offset - start), data: current };
    start = run.offset;
    current = run.data;
  }
  if (expected !== sizeBytes) throw new RangeError(`extents end at ${expected} of ${sizeBytes}`);
  if (current !== null && start < sizeBytes)
    yield { offset: bytes(start), length: bytes(sizeBytes - start), data: current };
}

/** Extents snapped to chunks: data grows outwards, the rest shrinks; adjoining pieces stay adjoining. */
async function* snapped(extents: AsyncIterable<ClassedExtent>, sizeBytes: Bytes): AsyncGenerator<ClassedExtent> {
  let done = 0; // everything before is yielded; a chunk boundary, or the disk's end
  let seen = 0;
  let tailHasData = false; // whether [done, seen) holds data; it is shorter than a chunk
  for await (const extent of extents) {
    if (extent.offset !== seen || extent.length <= 0) throw new RangeError(`extents leave a gap at ${seen}`);
    const end = seen + extent.length;
    if (end > sizeBytes) throw new RangeError(`extents run past the disk's end: ${end} of ${sizeBytes}`);
    if (seen > done) {
      tailHasData ||= extent.data;
      const boundary = Math.min(done + CHUNK_BYTES, sizeBytes);
      if (end >= boundary) {
        yield { offset: done, length: boundary - done, data: tailHasData };
        done = boundary;
        tailHasData = false;
      }
    }
    const whole = end === sizeBytes ? end : end - (end % CHUNK_BYTES);
    if (whole > done) {
      yield { offset: done, length: whole - done, data: extent.data };
      done = whole;
    }
    if (end > done && seen <= done) tailHasData = extent.data;
    seen = end;
  }
}

/** Cuts a run into reads of at most `maxBytes` (a multiple of the chunk). */
export function* cut(range: Range, maxBytes: number): Generator<Range> {
  const end = range.offset + range.length;
  for (let offset: number = range.offset; offset < end; offset += maxBytes)
    yield { offset: bytes(offset), length: bytes(Math.min(maxBytes, end - offset)) };
}
