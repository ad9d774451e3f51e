import type { DomainKeys } from "../../keys/index.ts";
import { ID_BYTES } from "../format/node.ts";
import { damaged, decodeObjectHeader } from "../format/object.ts";
import {
  decodeTrailer,
  type FrameRecord,
  openPackIndex,
  PACK_FRONT_BYTES,
  type PackIndex,
  packName,
  SLOT_BYTES,
  TRAILER_BYTES,
} from "../format/pack.ts";
import type { Storage } from "../storage/storage.ts";

/** A durable pack. The flags are this process's view; what they come from is stored in the repository. */
export interface Pack {
  /** Counted up in this process, never reused: a small name for tables. */
  readonly number: number;
  readonly id: string;
  readonly sizeBytes: number;
  /** Found dead by a collection: its ids are unknown to writers, readers may still use it. */
  condemned: boolean;
  /** Slots that cannot be read any more; `all` when its index cannot. */
  damagedSlots: Set<number> | "all" | null;
}

/** The packs that are in the storage. */
export class PackSet {
  readonly #byId = new Map<string, Pack>();
  readonly #byNumber: (Pack | null)[] = [];

  add(id: string, sizeBytes: number): Pack {
    const pack: Pack = { number: this.#byNumber.length, id, sizeBytes, condemned: false, damagedSlots: null };
    this.#byId.set(id, pack);
    this.#byNumber.push(pack);
    return pack;
  }

  get(id: string): Pack | undefined {
    return this.#byId.get(id);
  }

  at(number: number): Pack | null {
    return this.#byNumber[number] ?? null;
  }

  delete(pack: Pack): void {
    this.#byId.delete(pack.id);
    this.#byNumber[pack.number] = null;
  }

  [Symbol.iterator](): Iterator<Pack> {
    return this.#byId.values();
  }

  get size(): number {
    return this.#byId.size;
  }
}

/** A pack whose index is in memory. */
export interface OpenPack {
  readonly pack: Pack;
  readonly keys: DomainKeys;
  readonly packKey: Buffer;
  readonly packId: Buffer;
  readonly index: PackIndex;
  /** The slot that holds exactly this id, or -1. */
  slotOf(id: Buffer): number;
  frameOf(slot: number): FrameRecord;
}

export function slotId(index: PackIndex, slot: number): Buffer {
  return index.slots.subarray(slot * SLOT_BYTES, slot * SLOT_BYTES + ID_BYTES);
}

export function slotLength(index: PackIndex, slot: number): number {
  return index.slots.readUInt32LE(slot * SLOT_BYTES + ID_BYTES);
}

/** Whether the slot is known to be unreadable. */
export function isDamaged(pack: Pack, slot: number): boolean {
  return pack.damagedSlots === "all" || (pack.damagedSlots?.has(slot) ?? false);
}

export function openPack(pack: Pack, keys: DomainKeys, index: PackIndex): OpenPack {
  const packId = Buffer.from(pack.id, "hex");
  const slotCount = index.slots.length / SLOT_BYTES;
  let size = 4;
  while (size < slotCount * 2) size *= 2;
  // Slot + 1 by the id's first word: ids are HMACs, so they spread by themselves.
  const table = new Uint32Array(size);
  for (let slot = 0; slot < slotCount; slot++) {
    let at = index.slots.readUInt32LE(slot * SLOT_BYTES) & (size - 1);
    while (table[at] !== 0) at = (at + 1) & (size - 1);
    table[at] = slot + 1;
  }
  return {
    pack,
    keys,
    packKey: keys.packKey(packId),
    packId,
    index,
    slotOf: (id) => {
      for (let at = id.readUInt32LE(0) & (size - 1); ; at = (at + 1) & (size - 1)) {
        const slot = (table[at] as number) - 1;
        if (slot < 0) return -1;
        if (index.slots.compare(id, 0, ID_BYTES, slot * SLOT_BYTES, slot * SLOT_BYTES + ID_BYTES) === 0) return slot;
      }
    },
    frameOf: (slot) => frameOfSlot(index.frames, slot),
  };
}

function frameOfSlot(frames: readonly FrameRecord[], slot: number): FrameRecord {
  let low = 0;
  let high = frames.length;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if ((frames[middle] as FrameRecord).firstSlot <= slot) low = middle;
    else high = middle;
  }
  return frames[low] as FrameRecord;
}

/** About 55 KiB each for packs of 16 MiB. */
const MAX_OPEN_PACKS = 512;

/** Loads whole pack indexes at the first hit and keeps those used last. */
export class OpenPacks {
  readonly #storage: Storage;
  readonly #repositoryId: string;
  readonly #domains: ReadonlyMap<string, DomainKeys>;
  readonly #open = new Map<number, OpenPack>();
  readonly #loading = new Map<number, Promise<OpenPack>>();

  constructor(storage: Storage, repositoryId: string, domains: ReadonlyMap<string, DomainKeys>) {
    this.#storage = storage;
    this.#repositoryId = repositoryId;
    this.#domains = domains;
  }

  /** Without waiting: null when it is not in memory. */
  peek(pack: Pack): OpenPack | null {
    const found = this.#open.get(pack.number);
    if (!found) return null;
    this.#open.delete(pack.number);
    this.#open.set(pack.number, found);
    return found;
  }

  /** Throws RepositoryDamaged when the pack's index cannot be read. */
  async get(pack: Pack): Promise<OpenPack> {
    const found = this.peek(pack);
    if (found) return found;
    let loading = this.#loading.get(pack.number);
    if (!loading) {
      loading = this.load(pack).finally(() => this.#loading.delete(pack.number));
      this.#loading.set(pack.number, loading);
    }
    const opened = await loading;
    this.keep(opened);
    return opened;
  }

  keep(opened: OpenPack): void {
    this.#open.set(opened.pack.number, opened);
    for (const oldest of this.#open.keys()) {
      if (this.#open.size <= MAX_OPEN_PACKS) break;
      this.#open.delete(oldest);
    }
  }

  forget(pack: Pack): void {
    this.#open.delete(pack.number);
  }

  /** Reads and verifies the index, past the cache. */
  async load(pack: Pack): Promise<OpenPack> {
    const name = packName(pack.id);
    if (pack.sizeBytes < PACK_FRONT_BYTES + TRAILER_BYTES) throw damaged(name, "it is cut short");
    const front = await this.#storage.readRange(name, 0, PACK_FRONT_BYTES);
    const header = decodeObjectHeader(front, name, { kind: "pack", repositoryId: this.#repositoryId });
    const keys = this.#domains.get(header.domain);
    if (!keys) throw damaged(name, `the key of its domain ${header.domain} is not here`);
    const trailer = await this.#storage.readRange(name, pack.sizeBytes - TRAILER_BYTES, TRAILER_BYTES);
    const { offset, length } = decodeTrailer(trailer, pack.sizeBytes, name);
    const sealed = await this.#storage.readRange(name, offset, length);
    const packId = Buffer.from(pack.id, "hex");
    if (!front.subarray(-packId.length).equals(packId)) throw damaged(name, "it bears another id");
    return openPack(pack, keys, openPackIndex(keys, packId, offset, sealed, name));
  }
}
