import type { ChunkIndex, SortedIds } from "../index/chunk-index.ts";
import { PREFIX_BYTES } from "../index/id-table.ts";
import type { Pack } from "../index/packs.ts";
import { RECORD_BYTES } from "../index/segment.ts";
import { BUCKETS, type IdBuckets, idKey } from "./id-buckets.ts";

/** Packs that hold at least one live id: one merge of the live ids with the index, both in order. */
export async function packsWithLiveIds(index: ChunkIndex, live: IdBuckets): Promise<Set<Pack>> {
  const found = new Set<Pack>();
  const sources = index.sorted().map(bucketReader);
  for (let bucket = 0; bucket < BUCKETS; bucket++) {
    const keys = live.sorted(bucket);
    for (const source of sources) mergeBucket(source, bucket, keys, found);
    await new Promise(setImmediate);
  }
  return found;
}

interface BucketReader {
  readonly packs: readonly (Pack | null)[];
  /** The page in hand and the place in it, or null at the end. */
  current(): { readonly page: Buffer; readonly at: number } | null;
  next(): void;
}

function bucketReader(source: SortedIds): BucketReader {
  const pages = source.pages()[Symbol.iterator]();
  let page: Buffer = Buffer.alloc(0);
  let at = 0;
  const fill = () => {
    while (at >= page.length) {
      const more = pages.next();
      if (more.done) return null;
      page = more.value;
      at = 0;
    }
    return { page, at };
  };
  return {
    packs: source.packs,
    current: fill,
    next: () => {
      at += RECORD_BYTES;
    },
  };
}

function mergeBucket(source: BucketReader, bucket: number, keys: Float64Array, found: Set<Pack>): void {
  let position = 0;
  for (let record = source.current(); record && record.page[record.at] === bucket; record = source.current()) {
    const key = idKey(record.page, record.at);
    while (position < keys.length && (keys[position] as number) < key) position++;
    if (keys[position] === key) {
      const pack = source.packs[record.page.readUInt32LE(record.at + PREFIX_BYTES)];
      if (pack) found.add(pack);
    }
    source.next();
  }
}
