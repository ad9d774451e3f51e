import { join } from "node:path";
import { type Bytes, bytes, CHUNK_BYTES, StillpointError } from "../../base/index.ts";
import { type DomainKeys, keyedHash } from "../../keys/index.ts";
import type { Pins } from "../collect/pins.ts";
import type { Core } from "../core.ts";
import { chunkCount, ID_BYTES, isZeroId, MAX_NODE_BYTES, rootLevel, ZERO_ID, ZERO_ROOT } from "../format/node.ts";
import { isDamage } from "../format/object.ts";
import { SLOT_BYTES } from "../format/pack.ts";
import { rootId } from "../read/nodes.ts";
import type { DiskWriter, TreeRef } from "../types.ts";
import { type Anchor, anchorView, damagedRanges } from "./anchor.ts";
import { ChangeLog } from "./changes.ts";
import { type NewFrame, PackStream } from "./pack-stream.ts";
import { keyMaterial, type Slot } from "./pool.ts";
import { FRAME_CHUNKS, type Input, RUN_BYTES } from "./protocol.ts";
import { type Base, mergeTree } from "./tree-merge.ts";

/** Nodes of one frame: 64 leaves, 128 MiB of dense disk, read back together. */
const NODE_FRAME_BYTES = 64 * MAX_NODE_BYTES;

export interface DiskWriterOptions {
  readonly core: Core;
  readonly keys: DomainKeys;
  readonly packs: PackStream;
  readonly pins: Pins;
  readonly sizeBytes: Bytes;
  readonly anchor: TreeRef | null;
}

/** A disk writer, and what its point must do when it ends, finished or not. */
export interface OwnedDiskWriter extends DiskWriter {
  /** Waits for what is under way and removes its temporary files. */
  end(): Promise<void>;
}

/** See the contract in types.ts. */
export function diskWriter(options: DiskWriterOptions): OwnedDiskWriter {
  const { core, keys, packs, pins, sizeBytes, anchor } = options;
  const chunks = chunkCount(sizeBytes);
  const view: Anchor | null = anchor && anchorView(core, keys, anchor);
  const changes = new ChangeLog(join(core.cacheDir, "tmp"), core.random);
  const material = keyMaterial(keys);
  const underWay = new Set<Promise<void>>();
  let bytesRead = 0;
  let storedBytes = 0;
  let finished = false;

  function checkRange(offset: number, length: number): void {
    packs.assertWhole();
    const end = offset + length;
    const whole = length % CHUNK_BYTES === 0 || end === sizeBytes;
    if (finished || offset % CHUNK_BYTES !== 0 || !whole || end > sizeBytes)
      throw new StillpointError(
        "InternalError",
        `a disk writer was given ${length} bytes at ${offset} of ${sizeBytes}`,
      );
  }

  async function write(offset: Bytes, data: Uint8Array): Promise<void> {
    checkRange(offset, data.length);
    bytesRead += data.length;
    const shared: Promise<void>[] = [];
    for (let at = 0; at < data.length; at += RUN_BYTES) {
      const piece = data.subarray(at, at + RUN_BYTES);
      const slot = await acquireSlot();
      const job = startRun(slot, (offset + at) / CHUNK_BYTES, piece);
      if (job.usesCallersMemory) shared.push(job.done);
    }
    await Promise.all(shared);
    packs.assertWhole();
  }

  /** The point may have failed or been given up while this waited its turn: nothing is begun then. */
  async function acquireSlot(): Promise<Slot> {
    const slot = await core.pool.acquireSlot();
    try {
      packs.assertWhole();
      return slot;
    } catch (error) {
      core.pool.releaseSlot(slot);
      throw error;
    }
  }

  /** Memory that is shared already and whole chunks long is worked on in place; other data is copied into the slot. */
  function startRun(slot: Slot, first: number, data: Uint8Array): { usesCallersMemory: boolean; done: Promise<void> } {
    const inPlace = data.buffer instanceof SharedArrayBuffer && data.length % CHUNK_BYTES === 0;
    const input: Input = inPlace
      ? { shared: data.buffer as SharedArrayBuffer, offset: data.byteOffset }
      : { shared: null, offset: 0 };
    const count = Math.ceil(data.length / CHUNK_BYTES);
    if (!inPlace) {
      slot.input.set(data);
      slot.input.fill(0, data.length, count * CHUNK_BYTES); // the last chunk is padded with zeroes
    }
    const done = processRun(slot, input, first, count)
      .catch((error) => packs.fail(error))
      .finally(() => {
        core.pool.releaseSlot(slot);
        underWay.delete(done);
      });
    underWay.add(done);
    return { usesCallersMemory: inPlace, done };
  }

  async function processRun(slot: Slot, input: Input, first: number, count: number): Promise<void> {
    await core.pool.identify({ slot: slot.number, input, chunks: count, keys: material });
    const wanted: boolean[] = [];
    for (let chunk = 0; chunk < count; chunk++) {
      const id = slot.ids.subarray(chunk * ID_BYTES, (chunk + 1) * ID_BYTES);
      wanted.push(!isZeroId(id) && !(await known(id)));
      const before = view ? await view.chunkId(first + chunk) : ZERO_ID;
      if (!before?.equals(id)) changes.add(first + chunk, 1, id);
    }
    const frames = newFrames(wanted, slot.ids, (id) => packs.claim(id));
    if (frames.length === 0) return;
    const stored = await packs.store(slot, input, "chunks", frames);
    storedBytes += stored;
  }

  /** Whether a durable pack holds the id; that pack is then pinned, in the same step. */
  async function known(id: Buffer): Promise<boolean> {
    const found = core.locator.peek(id, "write");
    const located = found === undefined ? await core.locator.locate(id, "write") : found;
    if (!located || located.open.pack.condemned) return false;
    pins.packs.add(located.open.pack);
    return true;
  }

  async function matchesAnchor(offset: Bytes, data: Uint8Array): Promise<boolean> {
    checkRange(offset, data.length);
    for (let at = 0; at < data.length; at += RUN_BYTES)
      if (!(await matchesRun(offset + at, data.subarray(at, at + RUN_BYTES)))) return false;
    return true;
  }

  async function matchesRun(offset: number, data: Uint8Array): Promise<boolean> {
    const slot = await core.pool.acquireSlot();
    try {
      const count = Math.ceil(data.length / CHUNK_BYTES);
      slot.input.set(data);
      slot.input.fill(0, data.length, count * CHUNK_BYTES);
      await core.pool.identify({
        slot: slot.number,
        input: { shared: null, offset: 0 },
        chunks: count,
        keys: material,
      });
      for (let chunk = 0; chunk < count; chunk++) {
        const id = slot.ids.subarray(chunk * ID_BYTES, (chunk + 1) * ID_BYTES);
        const before = view ? await view.chunkId(offset / CHUNK_BYTES + chunk) : ZERO_ID;
        if (!before?.equals(id)) return false;
        if (!isZeroId(id) && !(await core.locator.locate(id, "sound"))) return false;
      }
      return true;
    } finally {
      core.pool.releaseSlot(slot);
    }
  }

  const hash = keyedHash(keys.nodeIdKey);
  let nodes: { readonly bytes: Buffer; readonly id: Buffer }[] = [];
  let nodeBytes = 0;

  async function emitNode(node: Buffer): Promise<Buffer> {
    const id = hash(node);
    if (!(await known(id))) {
      nodes.push({ bytes: node, id });
      nodeBytes += node.length;
      if (nodeBytes + MAX_NODE_BYTES > NODE_FRAME_BYTES) await storeNodes();
    }
    return id;
  }

  /** Nodes gathered so far, as one frame; resolves when it is under way. */
  async function storeNodes(): Promise<void> {
    const gathered = nodes;
    nodes = [];
    nodeBytes = 0;
    const slot = await acquireSlot();
    const done = storeNodeFrame(slot, gathered)
      .catch((error) => packs.fail(error))
      .finally(() => {
        core.pool.releaseSlot(slot);
        underWay.delete(done);
      });
    underWay.add(done);
  }

  async function storeNodeFrame(slot: Slot, gathered: typeof nodes): Promise<void> {
    const fresh = gathered.filter(({ id }) => packs.claim(id));
    if (fresh.length === 0) return;
    const table = Buffer.alloc(fresh.length * SLOT_BYTES);
    let length = 0;
    fresh.forEach(({ bytes: node, id }, index) => {
      id.copy(table, index * SLOT_BYTES);
      table.writeUInt32LE(node.length, index * SLOT_BYTES + ID_BYTES);
      node.copy(slot.input, length);
      length += node.length;
    });
    const frame: NewFrame = { from: 0, length, slots: table };
    const stored = await packs.store(slot, { shared: null, offset: 0 }, "nodes", [frame]);
    storedBytes += stored;
  }

  async function settled(): Promise<void> {
    while (underWay.size > 0) await Promise.all(underWay);
    packs.assertWhole();
  }

  async function finish(): ReturnType<DiskWriter["finish"]> {
    finished = true;
    try {
      await settled();
      const { root, changedChunks } = await mergeTree({
        base: anchorBase(anchor),
        rootLevel: rootLevel(sizeBytes),
        chunkCount: chunks,
        changes: changes.inOrder(),
        load: (id, level) => core.nodes.node(keys, id, level),
        isLost: isDamage,
        emit: emitNode,
      });
      if (nodes.length > 0) await storeNodes();
      await settled();
      const tree = { domain: keys.domain, root: isZeroId(root) ? ZERO_ROOT : root.toString("hex"), sizeBytes };
      pins.trees.add(tree);
      const newStoredBytes = bytes(storedBytes === 0 ? 0 : storedBytes + PackStream.overheadBytes);
      return { tree, stats: { bytesRead: bytes(bytesRead), changedChunks, newStoredBytes } };
    } catch (error) {
      packs.fail(error);
      throw error;
    } finally {
      changes.close();
    }
  }

  return {
    write,
    zero: async (offset, length) => {
      checkRange(offset, length);
      if (anchor && length > 0) changes.add(offset / CHUNK_BYTES, Math.ceil(length / CHUNK_BYTES), ZERO_ID);
    },
    matchesAnchor,
    damagedRanges: async () => (anchor ? damagedRanges(core, keys, anchor) : []),
    finish,
    end: async () => {
      finished = true;
      while (underWay.size > 0) await Promise.all(underWay);
      changes.close();
    },
  };
}

function anchorBase(anchor: TreeRef | null): Base {
  const id = anchor && rootId(anchor);
  return id && anchor ? { level: rootLevel(anchor.sizeBytes), id } : null;
}

/** Frames of up to 4 neighbouring wanted chunks that this point is not writing already. */
function newFrames(wanted: readonly boolean[], ids: Buffer, claim: (id: Buffer) => boolean): NewFrame[] {
  const frames: { first: number; count: number }[] = [];
  wanted.forEach((isWanted, chunk) => {
    if (!isWanted || !claim(ids.subarray(chunk * ID_BYTES, (chunk + 1) * ID_BYTES))) return;
    const last = frames.at(-1);
    if (last && last.first + last.count === chunk && last.count < FRAME_CHUNKS) last.count++;
    else frames.push({ first: chunk, count: 1 });
  });
  return frames.map(({ first, count }) => ({
    from: first * CHUNK_BYTES,
    length: count * CHUNK_BYTES,
    slots: chunkSlots(ids, first, count),
  }));
}

function chunkSlots(ids: Buffer, first: number, count: number): Buffer {
  const slots = Buffer.alloc(count * SLOT_BYTES);
  for (let index = 0; index < count; index++) {
    ids.copy(slots, index * SLOT_BYTES, (first + index) * ID_BYTES, (first + index + 1) * ID_BYTES);
    slots.writeUInt32LE(CHUNK_BYTES, index * SLOT_BYTES + ID_BYTES);
  }
  return slots;
}
