import { closeSync, openSync, readSync } from "node:fs";
import { crc32 } from "node:zlib";
import { PACK_ID_BYTES } from "../format/pack.ts";
import { PREFIX_BYTES } from "./id-table.ts";

/**
 * One sorted, immutable file of the chunk index cache: head | pack ids | fences | filter | records.
 * Head, pack ids, fences and filter (about 1.3 bytes a record) are in memory and protected by a checksum; a record is
 * read with one 4 KiB read after the filter let it pass. A record is 16 bytes of the id and the pack's place in the
 * segment's pack table.
 */
export const RECORD_BYTES = PREFIX_BYTES + 4;
export const RECORDS_PER_PAGE = 204;
export const PAGE_BYTES = RECORDS_PER_PAGE * RECORD_BYTES;
export const SEGMENT_MAGIC = Buffer.from("STLPIDX1", "latin1");
export const SEGMENT_HEAD_BYTES = 32;
export const FENCE_BYTES = 8;
/** 10 bits and 7 probes a record: about 1 % of absent ids cost a read. */
const FILTER_BITS_PER_RECORD = 10;
const FILTER_PROBES = 7;

export function filterBytes(records: number): number {
  return Math.max(8, Math.ceil((records * FILTER_BITS_PER_RECORD) / 8));
}

/** Sets or tests the filter's bits of an id. The id is an HMAC, so its own words serve as hashes. */
export function filterAdd(filter: Uint8Array, id: Buffer): void {
  const bits = filter.length * 8;
  let hash = id.readUInt32LE(4);
  const step = id.readUInt32LE(8) | 1;
  for (let probe = 0; probe < FILTER_PROBES; probe++) {
    const bit = hash % bits;
    filter[bit >>> 3] = (filter[bit >>> 3] as number) | (1 << (bit & 7));
    hash = (hash + step) >>> 0;
  }
}

function filterHas(filter: Uint8Array, id: Buffer): boolean {
  const bits = filter.length * 8;
  let hash = id.readUInt32LE(4);
  const step = id.readUInt32LE(8) | 1;
  for (let probe = 0; probe < FILTER_PROBES; probe++) {
    const bit = hash % bits;
    if (((filter[bit >>> 3] as number) & (1 << (bit & 7))) === 0) return false;
    hash = (hash + step) >>> 0;
  }
  return true;
}

export interface Segment {
  readonly path: string;
  readonly records: number;
  /** Hex ids; a record's value points here. */
  readonly packs: readonly string[];
  /** Places in {@link packs} of the packs that may hold the id. */
  find(id: Buffer): number[];
  /** Records in order of prefix, page by page: `page` is valid until the next one. */
  pages(): Iterable<Buffer>;
  close(): void;
}

/** Opens a segment. Null when it is damaged or of another kind: it is only a cache. */
export function openSegment(path: string): Segment | null {
  const fd = openSync(path, "r");
  try {
    const segment = readSegment(path, fd);
    if (!segment) closeSync(fd);
    return segment;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function readSegment(path: string, fd: number): Segment | null {
  const head = Buffer.alloc(SEGMENT_HEAD_BYTES);
  if (readSync(fd, head, 0, head.length, 0) !== head.length || !head.subarray(0, 8).equals(SEGMENT_MAGIC)) return null;
  const records = head.readUInt32LE(8);
  const packCount = head.readUInt32LE(12);
  const pageCount = Math.ceil(records / RECORDS_PER_PAGE);
  const fencesAt = packCount * PACK_ID_BYTES;
  const filterAt = fencesAt + pageCount * FENCE_BYTES;
  const table = Buffer.alloc(filterAt + filterBytes(records));
  if (readSync(fd, table, 0, table.length, SEGMENT_HEAD_BYTES) !== table.length) return null;
  if (head.readUInt32LE(16) !== crc32(table)) return null;
  const packs: string[] = [];
  for (let at = 0; at < fencesAt; at += PACK_ID_BYTES) packs.push(table.toString("hex", at, at + PACK_ID_BYTES));
  const fences = table.subarray(fencesAt, filterAt);
  const filter = table.subarray(filterAt);
  const recordsAt = SEGMENT_HEAD_BYTES + table.length;
  const page = Buffer.alloc(PAGE_BYTES);
  const readPage = (number: number) => {
    const length = Math.min(PAGE_BYTES, records * RECORD_BYTES - number * PAGE_BYTES);
    const got = readSync(fd, page, 0, length, recordsAt + number * PAGE_BYTES);
    return page.subarray(0, got - (got % RECORD_BYTES));
  };
  return {
    path,
    records,
    packs,
    find: (id) => (filterHas(filter, id) ? findInPages(id, fences, readPage) : []),
    pages: function* () {
      for (let number = 0; number < pageCount; number++) yield readPage(number);
    },
    close: () => closeSync(fd),
  };
}

function findInPages(id: Buffer, fences: Buffer, readPage: (number: number) => Buffer): number[] {
  const found: number[] = [];
  const pageCount = fences.length / FENCE_BYTES;
  // The last page that starts before the id, then on while pages start at or before it: equal prefixes may cross pages.
  let low = 0;
  let high = pageCount;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (fences.compare(id, 0, FENCE_BYTES, middle * FENCE_BYTES, (middle + 1) * FENCE_BYTES) < 0) low = middle + 1;
    else high = middle;
  }
  for (let number = Math.max(0, low - 1); number < pageCount; number++) {
    if (fences.compare(id, 0, FENCE_BYTES, number * FENCE_BYTES, (number + 1) * FENCE_BYTES) > 0) break;
    const page = readPage(number);
    for (let at = lowerBound(page, id); at < page.length; at += RECORD_BYTES) {
      if (page.compare(id, 0, PREFIX_BYTES, at, at + PREFIX_BYTES) !== 0) break;
      found.push(page.readUInt32LE(at + PREFIX_BYTES));
    }
  }
  return found;
}

function lowerBound(page: Buffer, id: Buffer): number {
  let low = 0;
  let high = page.length / RECORD_BYTES;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const at = middle * RECORD_BYTES;
    if (page.compare(id, 0, PREFIX_BYTES, at, at + PREFIX_BYTES) < 0) low = middle + 1;
    else high = middle;
  }
  return low * RECORD_BYTES;
}
