import { closeSync, openSync, renameSync, writeSync } from "node:fs";
import { crc32 } from "node:zlib";
import { PACK_ID_BYTES } from "../format/pack.ts";
import { type IdTable, PREFIX_BYTES } from "./id-table.ts";
import {
  FENCE_BYTES,
  filterAdd,
  filterBytes,
  RECORD_BYTES,
  RECORDS_PER_PAGE,
  SEGMENT_HEAD_BYTES,
  SEGMENT_MAGIC,
  type Segment,
} from "./segment.ts";

/** Records handed to the event loop's other users after so many: about 2 ms of work. */
const RECORDS_PER_TURN = 8192;

/** The table's entries as sorted records; `place` turns a value into a place in the segment's pack table. */
export function sortedRecords(table: IdTable, place: (value: number) => number): Buffer {
  const unsorted = Buffer.allocUnsafe(table.size * RECORD_BYTES);
  const order = new Float64Array(table.size);
  let count = 0;
  table.forEach((prefix, value) => {
    prefix.copy(unsorted, count * RECORD_BYTES);
    unsorted.writeUInt32LE(place(value), count * RECORD_BYTES + PREFIX_BYTES);
    // 32 bits of prefix and 21 of position fit a double exactly: sorted natively, the rest is settled below.
    order[count] = prefix.readUInt32BE(0) * 2 ** 21 + count;
    count++;
  });
  order.sort();
  const places = Array.from(order, (key) => (key % 2 ** 21) * RECORD_BYTES);
  settleTies(places, unsorted);
  const sorted = Buffer.allocUnsafe(unsorted.length);
  places.forEach((from, index) => {
    unsorted.copy(sorted, index * RECORD_BYTES, from, from + RECORD_BYTES);
  });
  return sorted;
}

/** Insertion sort by the whole prefix: only neighbours that share their first 32 bits can be out of order. */
function settleTies(places: number[], records: Buffer): void {
  const after = (a: number, b: number) => records.compare(records, b, b + PREFIX_BYTES, a, a + PREFIX_BYTES) > 0;
  for (let i = 1; i < places.length; i++)
    for (let j = i; j > 0 && after(places[j - 1] as number, places[j] as number); j--)
      [places[j - 1], places[j]] = [places[j] as number, places[j - 1] as number];
}

/**
 * Writes a segment of `count` sorted records. Not synced: after a crash its checksum or its missing records betray it,
 * and the packs it covered are read again.
 */
export async function writeSegment(
  path: string,
  packs: readonly string[],
  count: number,
  blocks: AsyncIterable<Buffer> | Iterable<Buffer>,
): Promise<void> {
  const temporary = `${path}.tmp`;
  const pageCount = Math.ceil(count / RECORDS_PER_PAGE);
  const fencesAt = packs.length * PACK_ID_BYTES;
  const filterAt = fencesAt + pageCount * FENCE_BYTES;
  const table = Buffer.alloc(filterAt + filterBytes(count));
  packs.forEach((pack, index) => {
    table.write(pack, index * PACK_ID_BYTES, PACK_ID_BYTES, "hex");
  });
  const filter = table.subarray(filterAt);
  const fd = openSync(temporary, "w", 0o600);
  try {
    let number = 0;
    let at = SEGMENT_HEAD_BYTES + table.length;
    for await (const block of blocks) {
      for (let record = 0; record < block.length; record += RECORD_BYTES, number++) {
        const prefix = block.subarray(record, record + PREFIX_BYTES);
        filterAdd(filter, prefix);
        if (number % RECORDS_PER_PAGE === 0)
          prefix.copy(table, fencesAt + (number / RECORDS_PER_PAGE) * FENCE_BYTES, 0, FENCE_BYTES);
      }
      at += writeSync(fd, block, 0, block.length, at);
    }
    if (number !== count) throw new RangeError(`expected ${count} index records, got ${number}`);
    const head = Buffer.alloc(SEGMENT_HEAD_BYTES);
    SEGMENT_MAGIC.copy(head, 0);
    head.writeUInt32LE(count, 8);
    head.writeUInt32LE(packs.length, 12);
    head.writeUInt32LE(crc32(table), 16);
    writeSync(fd, table, 0, table.length, SEGMENT_HEAD_BYTES);
    writeSync(fd, head, 0, head.length, 0);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, path);
}

/** The segments' records in one order, with places in the merged pack table; those of `null` packs are left out. */
export async function* mergeRecords(
  sources: readonly { readonly segment: Segment; readonly places: readonly (number | null)[] }[],
): AsyncIterable<Buffer> {
  const cursors = sources.map(({ segment, places }) => recordCursor(segment, places));
  let live = cursors.filter((cursor) => cursor.next());
  let out = Buffer.allocUnsafe(RECORDS_PER_TURN * RECORD_BYTES);
  let at = 0;
  while (live.length > 0) {
    let least = live[0] as RecordCursor;
    for (const cursor of live) if (cursor.before(least)) least = cursor;
    least.copyTo(out, at);
    at += RECORD_BYTES;
    if (!least.next()) live = live.filter((cursor) => cursor !== least);
    if (at === out.length) {
      yield out;
      await new Promise(setImmediate);
      out = Buffer.allocUnsafe(RECORDS_PER_TURN * RECORD_BYTES);
      at = 0;
    }
  }
  if (at > 0) yield out.subarray(0, at);
}

type RecordCursor = ReturnType<typeof recordCursor>;

function recordCursor(segment: Segment, places: readonly (number | null)[]) {
  const pages = segment.pages()[Symbol.iterator]();
  let page: Buffer = Buffer.alloc(0);
  let at = 0;
  let place = 0;
  const cursor = {
    get page() {
      return page;
    },
    get at() {
      return at;
    },
    next(): boolean {
      while (true) {
        at += RECORD_BYTES;
        if (at >= page.length) {
          const next = pages.next();
          if (next.done) return false;
          page = Buffer.from(next.value);
          at = 0;
          if (page.length === 0) return false;
        }
        const target = places[page.readUInt32LE(at + PREFIX_BYTES)];
        if (typeof target === "number") {
          place = target;
          return true;
        }
      }
    },
    before(other: { readonly page: Buffer; readonly at: number }): boolean {
      return page.compare(other.page, other.at, other.at + PREFIX_BYTES, at, at + PREFIX_BYTES) < 0;
    },
    copyTo(out: Buffer, to: number): void {
      page.copy(out, to, at, at + PREFIX_BYTES);
      out.writeUInt32LE(place, to + PREFIX_BYTES);
    },
  };
  return cursor;
}
