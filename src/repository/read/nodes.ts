import { type DomainKeys, type KeyedHash, keyedHash } from "../../keys/index.ts";
import type { DamageLog } from "../damage.ts";
import { openFrame } from "../format/frame.ts";
import {
  childId,
  decodeNode,
  FAN_OUT,
  isZeroId,
  nodeSpan,
  rootLevel,
  type TreeNode,
  ZERO_ROOT,
} from "../format/node.ts";
import { damaged, isDamage } from "../format/object.ts";
import { FRAME_KIND, type FrameRecord, packName, SLOT_BYTES } from "../format/pack.ts";
import { type Locator, placeOf } from "../index/locator.ts";
import { type OpenPack, slotLength } from "../index/packs.ts";
import type { Storage } from "../storage/storage.ts";
import type { TreeRef } from "../types.ts";

/** Decoded node frames kept: 64 KiB each, 64 leaves of a dense disk. */
const CACHED_FRAMES = 256;

/** Reads tree nodes. Every node is checked against its id before it is used. */
export interface NodeReader {
  /** Throws RepositoryDamaged when no readable copy is left. */
  node(keys: DomainKeys, id: Buffer, level: number): Promise<TreeNode>;
}

export function makeNodeReader(storage: Storage, locator: Locator, damage: DamageLog): NodeReader {
  const frames = new Map<string, Promise<Buffer | string>>();
  const hashes = new Map<string, KeyedHash>();

  const hashOf = (keys: DomainKeys) => {
    let hash = hashes.get(keys.domain);
    if (!hash) {
      hash = keyedHash(keys.nodeIdKey);
      hashes.set(keys.domain, hash);
    }
    return hash;
  };

  function frame(open: OpenPack, record: FrameRecord): Promise<Buffer | string> {
    const name = `${open.pack.number}:${record.ordinal}`;
    let found = frames.get(name);
    if (found) frames.delete(name);
    else {
      found = readFrame(storage, open, record);
      found.then(
        (plain) => typeof plain === "string" && frames.delete(name),
        () => frames.delete(name),
      );
    }
    frames.set(name, found);
    for (const oldest of frames.keys()) {
      if (frames.size <= CACHED_FRAMES) break;
      frames.delete(oldest);
    }
    return found;
  }

  async function bytesOf(keys: DomainKeys, id: Buffer, open: OpenPack, slot: number): Promise<Buffer | null> {
    const record = open.frameOf(slot);
    const plain = await frame(open, record);
    if (typeof plain === "string") return null;
    let at = 0;
    for (let before = record.firstSlot; before < slot; before++) at += slotLength(open.index, before);
    const bytes = plain.subarray(at, at + slotLength(open.index, slot));
    return hashOf(keys)(bytes).equals(id) ? bytes : null;
  }

  return {
    node: async (keys, id, level) => {
      const tried = new Set<string>();
      const next = () => locator.locate(id, "read", tried);
      for (let located = await next(); located; located = await next()) {
        const { open, slot } = located;
        // A second try tells a passing fault of the disk from real damage.
        const bytes = (await bytesOf(keys, id, open, slot)) ?? (await bytesOf(keys, id, open, slot));
        if (bytes) return decodeNode(bytes, level, `node ${id.toString("hex")}`);
        tried.add(placeOf(located));
        await damage.report(open.pack, slotsOf(open.frameOf(slot)));
      }
      await damage.reportMissing();
      throw damaged(`node ${id.toString("hex")}`, "no readable pack holds it");
    },
  };
}

export function slotsOf(frame: FrameRecord): number[] {
  return Array.from({ length: frame.slotCount }, (_, index) => frame.firstSlot + index);
}

/** Plaintext of one frame, or what is wrong with it. */
export async function readFrame(storage: Storage, open: OpenPack, frame: FrameRecord): Promise<Buffer | string> {
  let sealed: Buffer;
  try {
    sealed = await storage.readRange(packName(open.pack.id), frame.offset, frame.storedBytes);
  } catch (error) {
    if (!isDamage(error)) throw error;
    return (error as Error).message;
  }
  const slots = open.index.slots.subarray(
    frame.firstSlot * SLOT_BYTES,
    (frame.firstSlot + frame.slotCount) * SLOT_BYTES,
  );
  const place = { domain: open.keys.domain, packId: open.packId, packKey: open.packKey };
  return openFrame({ ...place, ...frame, kind: FRAME_KIND[frame.kind] }, slots, sealed);
}

/** A non-zero leaf and the first chunk it covers. */
export interface Leaf {
  readonly firstChunk: number;
  readonly node: TreeNode;
}

export function rootId(tree: TreeRef): Buffer | null {
  return tree.root === ZERO_ROOT ? null : Buffer.from(tree.root, "hex");
}

/** All non-zero leaves from `fromChunk` on, in disk order. */
export async function* leaves(nodes: NodeReader, keys: DomainKeys, tree: TreeRef, fromChunk = 0): AsyncIterable<Leaf> {
  const root = rootId(tree);
  if (root) yield* below(root, rootLevel(tree.sizeBytes), 0);

  async function* below(id: Buffer, level: number, first: number): AsyncIterable<Leaf> {
    const node = await nodes.node(keys, id, level);
    if (level === 0) {
      yield { firstChunk: first, node };
      return;
    }
    const span = nodeSpan(level - 1);
    for (let slot = 0; slot < FAN_OUT; slot++) {
      const child = childId(node, slot);
      const start = first + slot * span;
      if (!isZeroId(child) && start + span > fromChunk) yield* below(child, level - 1, start);
    }
  }
}

/** The leaf that covers `chunk`; null when it is all zero. */
export async function leafAt(
  nodes: NodeReader,
  keys: DomainKeys,
  tree: TreeRef,
  chunk: number,
): Promise<TreeNode | null> {
  let id = rootId(tree);
  for (let level = rootLevel(tree.sizeBytes); id; level--) {
    const node = await nodes.node(keys, id, level);
    if (level === 0) return node;
    const child = childId(node, Math.floor(chunk / nodeSpan(level - 1)) % FAN_OUT);
    id = isZeroId(child) ? null : child;
  }
  return null;
}
