import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Random, StillpointError } from "../../base/index.ts";
import type { PackIndex } from "../format/pack.ts";
import { SLOT_BYTES } from "../format/pack.ts";
import { IdTable } from "./id-table.ts";
import { type Pack, type PackSet, slotId } from "./packs.ts";
import { openSegment, RECORD_BYTES, type Segment } from "./segment.ts";
import { mergeRecords, sortedRecords, writeSegment } from "./segment-writer.ts";

/** Entries in memory before they become a segment: about 2.5 MiB, sorted in about 15 ms. */
const FLUSH_ENTRIES = 64 * 1024;
/** Segments of one size class that are merged into one of the next; 16 M chunks end in at most 3 classes. */
const MERGE_SEGMENTS = 8;

/**
 * Which packs may hold an id. A rebuildable cache: sorted segments on disk and a small table in memory. It answers with
 * candidates only; whoever asks must find the id in the pack's own index. At 16 M chunks about 30 MiB of memory.
 */
export interface ChunkIndex {
  /** Present packs that may hold the id. */
  candidates(id: Buffer): Pack[];
  /** The pack is durable and its ids may be used. */
  add(pack: Pack, index: PackIndex): void;
  /** Packs of the set whose ids are not in here. */
  uncovered(): Pack[];
  /** Sorted views for a merge: each segment's pages with its packs, and the memory table's entries as one more. */
  sorted(): readonly SortedIds[];
  /** Throws when the cache folder could not be written: memory would grow from then on. */
  assertWhole(): void;
  /** Resolves when the writing and merging begun by `add` has ended. Throws what went wrong with it. */
  settle(): Promise<void>;
  /** Drops everything, on disk too: the caller adds all packs anew. */
  reset(): Promise<void>;
  /** Writes what is in memory, so that the next start finds it. */
  close(): Promise<void>;
}

export interface SortedIds {
  readonly packs: readonly (Pack | null)[];
  pages(): Iterable<Buffer>;
}

export function openChunkIndex(folder: string, packs: PackSet, random: Random): ChunkIndex {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  let segments = openSegments(folder);
  let table = new IdTable();
  /** Full tables on their way to disk; still asked. */
  let flushing: IdTable[] = [];
  let covered = new Set<string>(segments.flatMap((segment) => segment.packs));
  let work: Promise<void> = Promise.resolve();
  let failure: Error | null = null;
  const places = new Map<Segment, (Pack | null)[]>();

  const packsOf = (segment: Segment) => {
    let known = places.get(segment);
    if (!known) {
      known = segment.packs.map((id) => packs.get(id) ?? null);
      places.set(segment, known);
    }
    return known;
  };

  function candidates(id: Buffer): Pack[] {
    const found: Pack[] = [];
    const consider = (pack: Pack | null | undefined) => {
      if (pack && packs.get(pack.id) === pack && !found.includes(pack)) found.push(pack);
    };
    for (const part of [table, ...flushing])
      part.find(id, (number) => {
        consider(packs.at(number));
        return false;
      });
    for (const segment of segments) for (const place of segment.find(id)) consider(packsOf(segment)[place]);
    return found;
  }

  function add(pack: Pack, index: PackIndex): void {
    covered.add(pack.id);
    for (let slot = 0; slot * SLOT_BYTES < index.slots.length; slot++) table.add(slotId(index, slot), pack.number);
    if (table.size >= FLUSH_ENTRIES) flush();
  }

  function flush(): void {
    if (table.size === 0) return;
    const full = table;
    table = new IdTable();
    flushing = [...flushing, full];
    work = work.then(async () => {
      const segment = await writeTable(full);
      segments = [...segments, segment];
      flushing = flushing.filter((other) => other !== full);
      await mergeFullClass();
    });
    work.catch((error) => {
      failure ??= error;
    });
  }

  const newPath = () => join(folder, `${random.bytes(8).toString("hex")}.seg`);

  async function writeTable(full: IdTable): Promise<Segment> {
    const { ids, placeOf } = packTable(full, packs);
    const path = newPath();
    await writeSegment(path, ids, full.size, [sortedRecords(full, placeOf)]);
    return reopened(path);
  }

  async function mergeFullClass(): Promise<void> {
    const classOf = (segment: Segment) =>
      Math.floor(Math.log(Math.max(1, segment.records / FLUSH_ENTRIES)) / Math.log(MERGE_SEGMENTS));
    const counts = new Map<number, Segment[]>();
    for (const segment of segments) counts.set(classOf(segment), [...(counts.get(classOf(segment)) ?? []), segment]);
    const full = [...counts.values()].find((members) => members.length >= MERGE_SEGMENTS);
    if (!full) return;
    const merged = await merge(full);
    segments = [...segments.filter((segment) => !full.includes(segment)), merged];
    for (const segment of full) {
      segment.close();
      rmSync(segment.path, { force: true });
      places.delete(segment);
    }
    await mergeFullClass();
  }

  async function merge(members: readonly Segment[]): Promise<Segment> {
    const ids: string[] = [];
    const sources = members.map((segment) => ({
      segment,
      places: packsOf(segment).map((pack) => (pack && packs.get(pack.id) === pack ? ids.push(pack.id) - 1 : null)),
    }));
    let count = 0;
    for await (const block of mergeRecords(sources)) count += block.length;
    const path = newPath();
    await writeSegment(path, ids, count / RECORD_BYTES, mergeRecords(sources));
    return reopened(path);
  }

  return {
    candidates,
    add,
    uncovered: () => [...packs].filter((pack) => !covered.has(pack.id)),
    sorted: () => [
      ...segments.map((segment) => ({ packs: packsOf(segment), pages: () => segment.pages() })),
      ...[table, ...flushing].map((part) => {
        const { ids, placeOf } = packTable(part, packs);
        return { packs: ids.map((id) => packs.get(id) ?? null), pages: () => [sortedRecords(part, placeOf)] };
      }),
    ],
    assertWhole: () => {
      if (failure)
        throw new StillpointError("InsufficientSpace", `The cache ${folder} cannot be written: ${failure.message}.`, {
          cause: failure,
          remedy: "Make room there and start again; nothing in it is needed.",
        });
    },
    settle: () => work,
    reset: async () => {
      await work.catch(() => {});
      for (const segment of segments) {
        segment.close();
        rmSync(segment.path, { force: true });
      }
      segments = [];
      table = new IdTable();
      flushing = [];
      covered = new Set();
      places.clear();
      work = Promise.resolve();
      failure = null;
    },
    close: async () => {
      flush();
      await work.finally(() => {
        for (const segment of segments) segment.close();
      });
    },
  };
}

function openSegments(folder: string): Segment[] {
  const segments: Segment[] = [];
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    const segment = name.endsWith(".seg") ? openSegment(path) : null;
    if (segment) segments.push(segment);
    else rmSync(path, { force: true }); // torn by a crash: its packs are read again
  }
  return segments;
}

function reopened(path: string): Segment {
  const segment = openSegment(path);
  if (!segment) throw new Error(`the index segment just written cannot be read: ${path}`);
  return segment;
}

/** The packs a table speaks of, numbered from zero. */
function packTable(table: IdTable, packs: PackSet): { ids: string[]; placeOf: (value: number) => number } {
  const ids: string[] = [];
  const place = new Map<number, number>();
  table.forEach((_, number) => {
    if (!place.has(number)) place.set(number, ids.push(packs.at(number)?.id ?? SWEPT) - 1);
  });
  return { ids, placeOf: (value) => place.get(value) as number };
}

/** Stands for a pack that went between being added and being written down. */
const SWEPT = "0".repeat(64);
