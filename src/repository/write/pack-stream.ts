import type { DomainKeys } from "../../keys/index.ts";
import type { Pins } from "../collect/pins.ts";
import type { Core } from "../core.ts";
import {
  encodePackFront,
  FRAME_KIND,
  FRAME_RECORD_BYTES,
  type FrameKind,
  type FrameRecord,
  PACK_FRONT_BYTES,
  packName,
  SLOT_BYTES,
  sealPackEnd,
  TRAILER_BYTES,
} from "../format/pack.ts";
import { IdTable } from "../index/id-table.ts";
import { openPack } from "../index/packs.ts";
import type { ObjectWriter } from "../storage/storage.ts";
import type { Slot } from "./pool.ts";
import type { Input } from "./protocol.ts";

/** A pack is closed when it has grown to this: large enough that fsync does not count, small enough to die whole. */
const PACK_BYTES = 16 * 1024 * 1024;
/** Packs being made durable at a time; more would only hide how slow the disk is. */
const PACKS_SETTLING = 4;

/** A new frame: a byte range of the run in the slot, and the ids and lengths in it. */
export interface NewFrame {
  readonly from: number;
  readonly length: number;
  readonly slots: Buffer;
}

interface OpenedPack {
  readonly packId: Buffer;
  readonly packKey: Buffer;
  readonly file: Promise<ObjectWriter>;
  readonly ids: IdTable;
  readonly frames: { readonly record: Omit<FrameRecord, "firstSlot">; readonly slots: Buffer }[];
  nextOrdinal: number;
  /** Next free byte. */
  end: number;
  framesUnderWay: number;
  closing: boolean;
  appended: Promise<void>;
}

/**
 * The packs of one point: its chunks and nodes, in the order they were decided on. The first error is final: a pack
 * whose fsync failed once is never asked again, and everything after it fails with the same error.
 */
export class PackStream {
  readonly #core: Core;
  readonly #keys: DomainKeys;
  readonly #pins: Pins;
  /** Packs that are not durable yet: their ids may be used by this point only. */
  readonly #undurable = new Set<OpenedPack>();
  readonly #settling = new Set<Promise<void>>();
  #current: OpenedPack | null = null;
  #failure: { readonly error: unknown } | null = null;

  constructor(core: Core, keys: DomainKeys, pins: Pins) {
    this.#core = core;
    this.#keys = keys;
    this.#pins = pins;
  }

  assertWhole(): void {
    if (this.#failure) throw this.#failure.error;
  }

  fail(error: unknown): void {
    this.#failure ??= { error };
  }

  /** Whether this point is writing the id already; if not, it is promised now and must be stored in the same step. */
  claim(id: Buffer): boolean {
    this.assertWhole();
    for (const pack of this.#undurable) if (pack.ids.has(id)) return false;
    this.#pack().ids.add(id, 0);
    return true;
  }

  /** Compresses, seals and appends frames; resolves with the bytes they took when the slot may be used again. */
  async store(slot: Slot, input: Input, kind: FrameKind, frames: readonly NewFrame[]): Promise<number> {
    this.assertWhole();
    const pack = this.#pack();
    pack.framesUnderWay += frames.length;
    try {
      return await this.#sealAndAppend(pack, slot, input, kind, frames);
    } catch (error) {
      this.fail(error);
      throw error;
    } finally {
      pack.framesUnderWay -= frames.length;
      if (pack.end >= PACK_BYTES) this.#close(pack);
      this.#settleIfDone(pack);
      if (this.#settling.size > PACKS_SETTLING) await Promise.race(this.#settling);
    }
  }

  async #sealAndAppend(
    pack: OpenedPack,
    slot: Slot,
    input: Input,
    kind: FrameKind,
    frames: readonly NewFrame[],
  ): Promise<number> {
    const first = pack.nextOrdinal;
    pack.nextOrdinal += frames.length;
    const sealed = await this.#core.pool.seal({
      slot: slot.number,
      input,
      domain: this.#keys.domain,
      packId: pack.packId,
      packKey: pack.packKey,
      frames: frames.map((frame, index) => ({ ...frame, kind: FRAME_KIND[kind], ordinal: first + index })),
    });
    this.assertWhole();
    let stored = 0;
    const parts = frames.map((frame, index) => {
      const { offset, storedBytes, encoding } = sealed[index] as (typeof sealed)[number];
      const slotCount = frame.slots.length / SLOT_BYTES;
      const ordinal = first + index;
      const plainBytes = frame.length;
      const record = { ordinal, kind, encoding, offset: pack.end, storedBytes, plainBytes, slotCount };
      pack.frames.push({ record, slots: frame.slots });
      pack.end += storedBytes;
      stored += storedBytes + FRAME_RECORD_BYTES + frame.slots.length;
      return slot.output.subarray(offset, offset + storedBytes);
    });
    await this.#append(pack, parts);
    return stored;
  }

  /** Appends follow one another, in the order in which their places were given. */
  #append(pack: OpenedPack, parts: readonly Uint8Array[]): Promise<void> {
    pack.appended = pack.appended.then(async () => (await pack.file).append(parts));
    return pack.appended;
  }

  #pack(): OpenedPack {
    if (this.#current) return this.#current;
    const core = this.#core;
    const packId = core.random.bytes(32);
    const name = packName(packId.toString("hex"));
    this.#pins.packIds.add(packId.toString("hex"));
    const pack: OpenedPack = {
      packId,
      packKey: this.#keys.packKey(packId),
      file: core.storage.begin(name),
      ids: new IdTable(),
      frames: [],
      nextOrdinal: 0,
      end: PACK_FRONT_BYTES,
      framesUnderWay: 0,
      closing: false,
      appended: Promise.resolve(),
    };
    const header = { epoch: core.epoch, repositoryId: core.key.repositoryId, domain: this.#keys.domain };
    this.#append(pack, [encodePackFront(header, packId)]).catch((error) => this.fail(error));
    this.#undurable.add(pack);
    this.#current = pack;
    return pack;
  }

  /** No more frames are begun in the pack. */
  #close(pack: OpenedPack): void {
    pack.closing = true;
    if (this.#current === pack) this.#current = null;
  }

  #settleIfDone(pack: OpenedPack): void {
    if (!pack.closing || pack.framesUnderWay > 0 || this.#failure) return;
    const settling = this.#settle(pack).catch((error) => this.fail(error));
    this.#settling.add(settling);
    settling.then(() => this.#settling.delete(settling));
  }

  /** Writes the index, makes the pack durable, and only then lets others know its ids. */
  async #settle(pack: OpenedPack): Promise<void> {
    pack.frames.sort((a, b) => a.record.ordinal - b.record.ordinal);
    let firstSlot = 0;
    const frames: FrameRecord[] = pack.frames.map(({ record }) => {
      const frame = { ...record, firstSlot };
      firstSlot += record.slotCount;
      return frame;
    });
    const index = { frames, slots: Buffer.concat(pack.frames.map((frame) => frame.slots)) };
    const end = sealPackEnd(this.#keys, pack.packId, index, pack.end);
    await this.#append(pack, [end]);
    await (await pack.file).commit();
    const known = this.#core.packs.add(pack.packId.toString("hex"), pack.end + end.length);
    this.#core.index.add(known, index);
    this.#core.openPacks.keep(openPack(known, this.#keys, index));
    this.#undurable.delete(pack);
  }

  /** Bytes that a pack takes beside its frames. */
  static readonly overheadBytes = PACK_FRONT_BYTES + TRAILER_BYTES + 8 + 16;

  /** Everything stored so far is durable when it returns. */
  async sync(): Promise<void> {
    this.assertWhole();
    const pack = this.#current;
    if (pack && pack.nextOrdinal > 0) {
      this.#close(pack);
      this.#settleIfDone(pack);
    }
    while (this.#settling.size > 0) await Promise.all(this.#settling);
    this.assertWhole();
  }

  /** After a failure, or {@link fail}: gives up what is not durable. Nothing may be under way. */
  async close(): Promise<void> {
    await Promise.all(this.#settling);
    for (const pack of this.#undurable) {
      await pack.appended.catch(() => {});
      await pack.file.then((file) => file.abort()).catch(() => {}); // no file: nothing to give up
    }
    this.#undurable.clear();
  }
}
