import { crc32 } from "node:zlib";
import { type DomainKeys, KEY_BYTES, seal, TAG_BYTES, unseal } from "../../keys/index.ts";
import { ID_BYTES } from "./node.ts";
import { damaged, encodeObjectHeader, FORMAT_VERSION, OBJECT_HEADER_BYTES, type ObjectHeader } from "./object.ts";

/** A pack: object header | pack id 32 | frames | sealed index | trailer 32. Written once, never reopened for appending. */
export const PACK_ID_BYTES = KEY_BYTES;
export const PACK_FRONT_BYTES = OBJECT_HEADER_BYTES + PACK_ID_BYTES;
export const TRAILER_BYTES = 32;
const TRAILER_MAGIC = Buffer.from("STLPTEND", "latin1");

export const FRAME_KIND = { chunks: 1, nodes: 2 } as const;
export type FrameKind = keyof typeof FRAME_KIND;
const INDEX_KIND = 255;
/** Ordinal of the index, out of the reach of frames. */
const INDEX_ORDINAL = 0xffffffff;

export const ENCODING = { raw: 0, zstd: 1 } as const;
export type Encoding = (typeof ENCODING)[keyof typeof ENCODING];

/** Id and plaintext length of one object in a frame. */
export const SLOT_BYTES = ID_BYTES + 4;
export const FRAME_RECORD_BYTES = 20;

export function packName(packId: string): string {
  return `packs/${packId.slice(0, 2)}/${packId}`;
}

export function encodePackFront(header: Omit<ObjectHeader, "kind">, packId: Buffer): Buffer {
  return Buffer.concat([encodeObjectHeader({ ...header, kind: "pack" }), packId]);
}

/** What every sealed part of a pack is bound to. `slots`: the ids and lengths in the frame, in order. */
export function frameAad(
  frame: {
    readonly kind: number;
    readonly encoding: number;
    readonly domain: string;
    readonly packId: Uint8Array;
    readonly ordinal: number;
  },
  slots: Uint8Array,
): Buffer {
  const out = Buffer.alloc(4 + 16 + PACK_ID_BYTES + 8 + slots.length);
  out.writeUInt16LE(FORMAT_VERSION, 0);
  out.writeUInt8(frame.kind, 2);
  out.writeUInt8(frame.encoding, 3);
  out.write(frame.domain, 4, 16, "hex");
  out.set(frame.packId, 20);
  out.writeUInt32LE(frame.ordinal, 52);
  out.writeUInt32LE(slots.length / SLOT_BYTES, 56);
  out.set(slots, 60);
  return out;
}

export interface FrameRecord {
  readonly ordinal: number;
  readonly kind: FrameKind;
  readonly encoding: Encoding;
  /** From the start of the pack. */
  readonly offset: number;
  /** Ciphertext and tag. */
  readonly storedBytes: number;
  /** Of all its slots together, before compression. */
  readonly plainBytes: number;
  /** First of its slots in the pack's slot table. */
  readonly firstSlot: number;
  readonly slotCount: number;
}

/** A pack's whole index: frames in order of ordinal, and all their slots in the same order. */
export interface PackIndex {
  readonly frames: readonly FrameRecord[];
  readonly slots: Buffer;
}

export function encodePackIndex(index: PackIndex): Buffer {
  const out = Buffer.alloc(8 + index.frames.length * FRAME_RECORD_BYTES + index.slots.length);
  out.writeUInt32LE(index.frames.length, 0);
  out.writeUInt32LE(index.slots.length / SLOT_BYTES, 4);
  let at = 8;
  for (const frame of index.frames) {
    out.writeUInt32LE(frame.ordinal, at);
    out.writeUInt32LE(frame.offset, at + 4);
    out.writeUInt32LE(frame.storedBytes, at + 8);
    out.writeUInt32LE(frame.plainBytes, at + 12);
    out.writeUInt8(FRAME_KIND[frame.kind], at + 16);
    out.writeUInt8(frame.encoding, at + 17);
    out.writeUInt16LE(frame.slotCount, at + 18);
    at += FRAME_RECORD_BYTES;
  }
  index.slots.copy(out, at);
  return out;
}

export function decodePackIndex(bytes: Buffer, object: string): PackIndex {
  if (bytes.length < 8) throw damaged(object, "its index is cut short");
  const frameCount = bytes.readUInt32LE(0);
  const slotBytes = bytes.readUInt32LE(4) * SLOT_BYTES;
  const slotsAt = 8 + frameCount * FRAME_RECORD_BYTES;
  if (bytes.length !== slotsAt + slotBytes) throw damaged(object, "its index has a wrong length");
  const frames: FrameRecord[] = [];
  let firstSlot = 0;
  for (let at = 8; at < slotsAt; at += FRAME_RECORD_BYTES) {
    const kind = bytes.readUInt8(at + 16);
    const slotCount = bytes.readUInt16LE(at + 18);
    if (kind !== FRAME_KIND.chunks && kind !== FRAME_KIND.nodes) throw damaged(object, `a frame has kind ${kind}`);
    frames.push({
      ordinal: bytes.readUInt32LE(at),
      offset: bytes.readUInt32LE(at + 4),
      storedBytes: bytes.readUInt32LE(at + 8),
      plainBytes: bytes.readUInt32LE(at + 12),
      kind: kind === FRAME_KIND.chunks ? "chunks" : "nodes",
      encoding: bytes.readUInt8(at + 17) as Encoding,
      firstSlot,
      slotCount,
    });
    firstSlot += slotCount;
  }
  if (firstSlot * SLOT_BYTES !== slotBytes) throw damaged(object, "its index contradicts itself");
  return { frames, slots: bytes.subarray(slotsAt) };
}

/** The end of a pack: the sealed index, then the trailer that tells where it starts. */
export function sealPackEnd(keys: DomainKeys, packId: Buffer, index: PackIndex, indexOffset: number): Buffer {
  const sealed = seal(
    keys.packKey(packId),
    INDEX_ORDINAL,
    indexAad(keys.domain, packId, indexOffset),
    encodePackIndex(index),
  );
  const trailer = Buffer.alloc(TRAILER_BYTES);
  trailer.writeBigUInt64LE(BigInt(indexOffset), 0);
  trailer.writeUInt32LE(sealed.length, 8);
  trailer.writeUInt32LE(index.frames.length, 12);
  trailer.writeUInt32LE(crc32(trailer.subarray(0, 16)), 16);
  TRAILER_MAGIC.copy(trailer, 24);
  return Buffer.concat([sealed, trailer]);
}

function indexAad(domain: string, packId: Uint8Array, indexOffset: number): Buffer {
  const place = Buffer.alloc(8);
  place.writeBigUInt64LE(BigInt(indexOffset));
  const front = frameAad({ kind: INDEX_KIND, encoding: 0, domain, packId, ordinal: INDEX_ORDINAL }, Buffer.alloc(0));
  return Buffer.concat([front, place]);
}

/** Where the sealed index lies in a pack of `packBytes`, from its trailer. */
export function decodeTrailer(trailer: Buffer, packBytes: number, object: string): { offset: number; length: number } {
  if (trailer.length !== TRAILER_BYTES || !trailer.subarray(24).equals(TRAILER_MAGIC))
    throw damaged(object, "its end is missing");
  if (trailer.readUInt32LE(16) !== crc32(trailer.subarray(0, 16))) throw damaged(object, "its end is damaged");
  const offset = Number(trailer.readBigUInt64LE(0));
  const length = trailer.readUInt32LE(8);
  if (offset < PACK_FRONT_BYTES || offset + length + TRAILER_BYTES !== packBytes || length < TAG_BYTES)
    throw damaged(object, "its end contradicts its length");
  return { offset, length };
}

export function openPackIndex(keys: DomainKeys, packId: Buffer, offset: number, sealed: Buffer, object: string) {
  const plain = unseal(keys.packKey(packId), INDEX_ORDINAL, indexAad(keys.domain, packId, offset), sealed);
  if (!plain) throw damaged(object, "the seal of its index does not hold");
  const index = decodePackIndex(plain, object);
  for (const frame of index.frames)
    if (frame.offset < PACK_FRONT_BYTES || frame.offset + frame.storedBytes > offset || frame.storedBytes < TAG_BYTES)
      throw damaged(object, `frame ${frame.ordinal} lies outside of it`);
  return index;
}
