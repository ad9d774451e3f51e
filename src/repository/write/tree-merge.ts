import { childId, encodeNode, FAN_OUT, ID_BYTES, isZeroId, nodeSpan, type TreeNode, ZERO_ID } from "../format/node.ts";
import type { Change } from "./changes.ts";

/**
 * What a subtree was in the anchor: a node of some level, all zero (null), or lost: it cannot be read, so everything
 * below it must be among the changes.
 */
export type Base = null | { readonly level: number; readonly id: Buffer } | { readonly lost: unknown };

export interface TreeMergeOptions {
  readonly base: Base;
  readonly rootLevel: number;
  readonly chunkCount: number;
  readonly changes: Iterator<Change>;
  /** A node of the anchor. */
  load(id: Buffer, level: number): Promise<TreeNode>;
  /** Whether that error means that the node is lost; others end the merge. */
  isLost(error: unknown): boolean;
  /** Stores a new node and gives its id. Called in disk order, children before parents. */
  emit(bytes: Buffer): Promise<Buffer>;
}

export interface MergedTree {
  readonly root: Buffer;
  readonly changedChunks: number;
}

/**
 * The anchor's tree with the changes applied: one walk in disk order that touches only nodes above a change. Without
 * changes it reads and writes nothing.
 */
export async function mergeTree(options: TreeMergeOptions): Promise<MergedTree> {
  const { chunkCount } = options;
  const pending = changeCursor(options.changes);
  let changedChunks = 0;

  async function build(level: number, first: number, base: Base): Promise<Buffer> {
    const end = first + nodeSpan(level);
    if (!pending.before(end)) {
      if (base === null || first >= chunkCount) return ZERO_ID;
      if ("lost" in base) throw base.lost;
      if (base.level === level) return base.id;
    } else if ((base === null || "lost" in base) && pending.zeroesUntil(first, end)) return ZERO_ID;
    const opened = await open(level, base);
    const children = Buffer.alloc(FAN_OUT * ID_BYTES);
    if (level === 0) fillLeaf(children, first, opened);
    else
      for (let slot = 0; slot < FAN_OUT; slot++) {
        const start = first + slot * nodeSpan(level - 1);
        (await build(level - 1, start, childBase(opened, slot))).copy(children, slot * ID_BYTES);
      }
    if (opened.ids?.equals(children) && base && "id" in base && base.level === level) return base.id;
    const bytes = encodeNode({ level, children });
    return bytes ? await options.emit(bytes) : ZERO_ID;
  }

  interface Opened {
    /** The children's ids; null when the base is lost. */
    readonly ids: Buffer | null;
    readonly lost: unknown;
    /** Level and id of a lower base whose first child this is: the disk has grown by a level. */
    readonly lower: Base;
    readonly level: number;
  }

  async function open(level: number, base: Base): Promise<Opened> {
    const none = { ids: Buffer.alloc(FAN_OUT * ID_BYTES), lost: null, lower: null, level };
    if (base === null) return none;
    if ("lost" in base) return { ...none, ids: null, lost: base.lost };
    if (base.level < level) return { ...none, lower: base };
    try {
      return { ...none, ids: (await options.load(base.id, level)).children };
    } catch (error) {
      if (!options.isLost(error)) throw error;
      return { ...none, ids: null, lost: error };
    }
  }

  function childBase(opened: Opened, slot: number): Base {
    if (opened.lower) return slot === 0 ? opened.lower : null;
    if (!opened.ids) return { lost: opened.lost };
    const id = childId({ level: opened.level, children: opened.ids }, slot);
    return isZeroId(id) ? null : { level: opened.level - 1, id };
  }

  function fillLeaf(children: Buffer, first: number, opened: Opened): void {
    opened.ids?.copy(children);
    for (let slot = 0; slot < FAN_OUT && first + slot < chunkCount; slot++) {
      const id = pending.take(first + slot);
      if (id) {
        if (!opened.ids || !childId({ level: 0, children: opened.ids }, slot).equals(id)) changedChunks++;
        id.copy(children, slot * ID_BYTES);
      } else if (!opened.ids) throw opened.lost;
    }
  }

  const root = await build(options.rootLevel, 0, options.base);
  return { root: Buffer.from(root), changedChunks };
}

function changeCursor(changes: Iterator<Change>) {
  let current = changes.next();
  const skipTo = (chunk: number) => {
    while (!current.done && current.value.start + current.value.count <= chunk) current = changes.next();
  };
  return {
    /** Whether a change lies before `end`; all earlier ones were taken. */
    before: (end: number) => !current.done && current.value.start < end,
    /** Whether one run of zeroes covers the whole range; it is then taken. */
    zeroesUntil: (first: number, end: number) => {
      if (current.done || !isZeroId(current.value.id)) return false;
      if (current.value.start > first || current.value.start + current.value.count < end) return false;
      skipTo(end);
      return true;
    },
    take: (chunk: number): Buffer | null => {
      skipTo(chunk);
      if (current.done || current.value.start > chunk) return null;
      const { id } = current.value;
      const taken = Buffer.from(id);
      skipTo(chunk + 1);
      return taken;
    },
  };
}
