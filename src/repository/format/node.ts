import { CHUNK_BYTES } from "../../base/index.ts";
import { damaged } from "./object.ts";

/** Children of a tree node. A leaf (level 0) covers 32 chunks, 2 MiB; level 1 covers 64 MiB; five levels reach 2 TiB. */
export const FAN_OUT = 32;
export const ID_BYTES = 32;
const NODE_HEADER_BYTES = 8;
export const MAX_NODE_BYTES = NODE_HEADER_BYTES + FAN_OUT * ID_BYTES;

/** Root of the all-zero disk, and the name of an all-zero subtree. In nodes it is an absent child. */
export const ZERO_ROOT = "zero";
export const ZERO_ID = Buffer.alloc(ID_BYTES);

export function isZeroId(id: Buffer): boolean {
  return id.equals(ZERO_ID);
}

/** A node: the ids of its 32 children side by side, zeroes for an all-zero child. */
export interface TreeNode {
  readonly level: number;
  readonly children: Buffer;
}

export function childId(node: TreeNode, slot: number): Buffer {
  return node.children.subarray(slot * ID_BYTES, (slot + 1) * ID_BYTES);
}

export function chunkCount(sizeBytes: number): number {
  return Math.ceil(sizeBytes / CHUNK_BYTES);
}

/** Chunks below one node of `level`. */
export function nodeSpan(level: number): number {
  return FAN_OUT ** (level + 1);
}

/** The level of the root of a disk: the lowest that covers it. */
export function rootLevel(sizeBytes: number): number {
  const chunks = chunkCount(sizeBytes);
  let level = 0;
  while (nodeSpan(level) < chunks) level++;
  return level;
}

/** level u8 | 3 zeroes | bit map of present children u32 | their ids. Null for a node without children. */
export function encodeNode(node: TreeNode): Buffer | null {
  const out = Buffer.alloc(MAX_NODE_BYTES);
  let at = NODE_HEADER_BYTES;
  let present = 0;
  for (let slot = 0; slot < FAN_OUT; slot++) {
    const id = childId(node, slot);
    if (isZeroId(id)) continue;
    present |= 1 << slot;
    id.copy(out, at);
    at += ID_BYTES;
  }
  if (present === 0) return null;
  out.writeUInt8(node.level, 0);
  out.writeUInt32LE(present >>> 0, 4);
  return out.subarray(0, at);
}

export function decodeNode(bytes: Buffer, level: number, object: string): TreeNode {
  if (bytes.length < NODE_HEADER_BYTES || bytes.readUInt8(0) !== level)
    throw damaged(object, `it is not a node of level ${level}`);
  const present = bytes.readUInt32LE(4);
  const children = Buffer.alloc(FAN_OUT * ID_BYTES);
  let at = NODE_HEADER_BYTES;
  for (let slot = 0; slot < FAN_OUT; slot++) {
    if (((present >>> slot) & 1) === 0) continue;
    if (at + ID_BYTES > bytes.length) throw damaged(object, "the node is cut short");
    bytes.copy(children, slot * ID_BYTES, at, at + ID_BYTES);
    at += ID_BYTES;
  }
  if (at !== bytes.length) throw damaged(object, "the node is too long");
  return { level, children };
}
