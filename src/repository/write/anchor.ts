import { type Bytes, bytes, CHUNK_BYTES } from "../../base/index.ts";
import type { DomainKeys } from "../../keys/index.ts";
import type { Core } from "../core.ts";
import { childId, chunkCount, FAN_OUT, isZeroId, nodeSpan, rootLevel, type TreeNode, ZERO_ID } from "../format/node.ts";
import { isDamage } from "../format/object.ts";
import { leafAt, rootId } from "../read/nodes.ts";
import type { TreeRef } from "../types.ts";

/** The tree that a disk starts from, as its writer looks at it. */
export interface Anchor {
  /** Id of a chunk of the anchor, zeroes beyond its end; null when the anchor cannot tell. */
  chunkId(chunk: number): Promise<Buffer | null>;
}

/** Leaves looked at last: a writer has a handful of runs under way, neighbours mostly. */
const CACHED_LEAVES = 64;

export function anchorView(core: Core, keys: DomainKeys, tree: TreeRef): Anchor {
  const cache = new Map<number, Promise<TreeNode | null | "lost">>();
  const chunks = chunkCount(tree.sizeBytes);

  function leaf(number: number): Promise<TreeNode | null | "lost"> {
    let found = cache.get(number);
    if (!found) {
      found = leafAt(core.nodes, keys, tree, number * FAN_OUT).catch((error) => {
        if (isDamage(error)) return "lost" as const;
        throw error;
      });
      cache.set(number, found);
      for (const oldest of cache.keys()) {
        if (cache.size <= CACHED_LEAVES) break;
        cache.delete(oldest);
      }
    }
    return found;
  }

  return {
    chunkId: async (chunk) => {
      if (chunk >= chunks) return ZERO_ID;
      const node = await leaf(Math.floor(chunk / FAN_OUT));
      if (node === "lost") return null;
      return node ? childId(node, chunk % FAN_OUT) : ZERO_ID;
    },
  };
}

interface Range {
  readonly offset: Bytes;
  readonly length: Bytes;
}

/**
 * Ranges of `tree` of which a chunk or a node above it is in no readable pack. Free of cost while no damage is known;
 * a walk over the whole tree otherwise. Finds only what is known: it reads no chunk.
 */
export async function damagedRanges(core: Core, keys: DomainKeys, tree: TreeRef): Promise<readonly Range[]> {
  const ranges: { offset: number; length: number }[] = [];
  const root = rootId(tree);
  if (!root || !core.damage.any) return [];

  function lost(chunk: number, count: number): void {
    const offset = chunk * CHUNK_BYTES;
    const end = Math.min(tree.sizeBytes, offset + count * CHUNK_BYTES);
    const last = ranges.at(-1);
    if (last && last.offset + last.length === offset) last.length = end - last.offset;
    else if (end > offset) ranges.push({ offset, length: end - offset });
  }

  async function walk(id: Buffer, level: number, first: number): Promise<void> {
    let node: TreeNode;
    try {
      node = await core.nodes.node(keys, id, level);
    } catch (error) {
      if (!isDamage(error)) throw error;
      lost(first, nodeSpan(level));
      return;
    }
    for (let slot = 0; slot < FAN_OUT; slot++) {
      const child = childId(node, slot);
      if (isZeroId(child)) continue;
      if (level > 0) await walk(child, level - 1, first + slot * nodeSpan(level - 1));
      else if (!(core.locator.peek(child, "sound") ?? (await core.locator.locate(child, "sound"))))
        lost(first + slot, 1);
    }
  }

  await walk(root, rootLevel(tree.sizeBytes), 0);
  return ranges.map(({ offset, length }) => ({ offset: bytes(offset), length: bytes(length) }));
}
