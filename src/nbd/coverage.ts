import { violation } from "./errors.ts";

/** Which bytes of a read have arrived: a byte may come once, and all must have come at the end. */
export interface Coverage {
  /** Marks `[start, end)`, relative to the request. Throws a violation when it overlaps what is there. */
  add(start: number, end: number): void;
  complete(): boolean;
}

/**
 * Servers may send chunks in any order. In order (what QEMU does) this is one comparison; out of order the ranges are
 * kept sorted. The number of chunks is bounded, or one-byte chunks would cost quadratic time: QEMU cuts at 512 bytes.
 */
export function createCoverage(length: number): Coverage {
  const ranges: { start: number; end: number }[] = [];
  const maxChunks = Math.ceil(length / 512) + 8;
  let chunks = 0;
  return {
    add(start, end) {
      if (++chunks > maxChunks) throw violation("it cuts a read into too many pieces");
      const last = ranges.at(-1);
      if (!last || start > last.end) {
        ranges.push({ start, end });
        return;
      }
      if (start === last.end) {
        last.end = end;
        return;
      }
      insert(ranges, start, end);
    },
    complete: () => ranges.length === 1 && ranges[0]?.start === 0 && ranges[0].end === length,
  };
}

function insert(ranges: { start: number; end: number }[], start: number, end: number): void {
  const at = ranges.findIndex((range) => range.end >= start);
  const range = ranges[at];
  if (!range) throw violation("it sends a piece of a read twice");
  if (range.end === start) {
    const next = ranges[at + 1];
    if (next && end > next.start) throw violation("it sends a piece of a read twice");
    range.end = end;
    if (next && next.start === end) {
      range.end = next.end;
      ranges.splice(at + 1, 1);
    }
    return;
  }
  if (end > range.start) throw violation("it sends a piece of a read twice");
  if (end === range.start) range.start = start;
  else ranges.splice(at, 0, { start, end });
}
