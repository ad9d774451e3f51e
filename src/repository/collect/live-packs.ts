import type { ChunkIndex, SortedIds } from "../index/chunk-index.ts";
import { PREFIX_BYTES } from "../index/id-table.ts";
import type { Pack } from "../index/packs.ts";
import { RECORD_BYTES } from "../index/segment.ts";
import { BUCKETS, type IdBuckets, idKey } from "./id-buckets.ts";

/**
 * Packs that are needed for a live id: one merge of the live ids with the index, both in order. A condemned pack is
 * needed only for an id that no sound pack holds; otherwise what was written anew would keep the old copy for ever.
 */
export async function packsWithLiveIds(index: ChunkIndex, live: IdBuckets): Promise<Set<Pack>> {
  const found = new Set<Pack>();
  const sources = index.sorted().map(bucketReader);
  for (let bucket = 0; bucket < BUCKETS; bucket++) {
    const keys = live.sorted(bucket);
    const inSoundPack = new Uint8Array(keys.length);
    const inCondemned: { readonly pack: Pack; readonly position: number }[] = [];
    for (const source of sources)
      mergeBucket(source, bucket, keys, (pack, position) => {
        if (pack.condemned) inCondemned.push({ pack, position });
        else {
          found.add(pack);
          if (pack.damagedSlots === null) inSoundPack[position] = 1;
        }
      });
    for (const { pack, position } of inCondemned) if (!inSoundPack[position]) found.add(pack);
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

/** Calls `hit` for each record of the bucket whose key is live, with the key's first position. */
function mergeBucket(
  source: BucketReader,
  bucket: number,
  keys: Float64Array,
  hit: (pack: Pack, position: number) => void,
): void {
  let position = 0;
  for (let record = source.current(); record && record.page[record.at] === bucket; record = source.current()) {
    const key = idKey(record.page, record.at);
    while (position < keys.length && (keys[position] as number) < key) position++;
    if (keys[position] === key) {
      const pack = source.packs[record.page.readUInt32LE(record.at + PREFIX_BYTES)];
      if (pack) hit(pack, position);
    }
    source.next();
  }
}
