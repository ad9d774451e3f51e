import { type Bytes, bytes, CHUNK_BYTES, StillpointError } from "../../base/index.ts";
import type { DomainKeys } from "../../keys/index.ts";
import { type Core, domainOf } from "../core.ts";
import { childId, FAN_OUT, isZeroId, rootLevel } from "../format/node.ts";
import type { DiskReader, Extent, TreeRef } from "../types.ts";
import { RUN_CHUNKS } from "../write/protocol.ts";
import { leaves, rootId } from "./nodes.ts";
import { type Run, readRun, runRange } from "./runs.ts";

/** Runs read ahead per worker, of up to 1 MiB each. */
const RUNS_AHEAD = 3;

/** See the contract in types.ts. */
export async function openDiskReader(core: Core, tree: TreeRef): Promise<DiskReader> {
  const keys = domainOf(core, tree.domain);
  const { pins, close } = core.pins.openReader();
  pins.trees.add(tree);
  const root = rootId(tree);
  try {
    if (root) await core.nodes.node(keys, root, rootLevel(tree.sizeBytes));
  } catch (error) {
    close();
    throw error;
  }
  return {
    sizeBytes: tree.sizeBytes,
    extents: () => extents(core, keys, tree),
    read: (offset, length) => readRange(core, keys, tree, offset, length),
    stream: (signal) => stream(core, keys, tree, signal),
    close: async () => close(),
  };
}

/** Present chunks from `fromChunk` on, in runs of up to 16. */
async function* runs(core: Core, keys: DomainKeys, tree: TreeRef, fromChunk = 0): AsyncIterable<Run> {
  let firstChunk = 0;
  let ids: Buffer[] = [];
  for await (const leaf of leaves(core.nodes, keys, tree, fromChunk)) {
    for (let slot = 0; slot < FAN_OUT; slot++) {
      const chunk = leaf.firstChunk + slot;
      const id = childId(leaf.node, slot);
      if (isZeroId(id) || chunk < fromChunk) continue;
      if (ids.length > 0 && (chunk !== firstChunk + ids.length || ids.length === RUN_CHUNKS)) {
        yield { firstChunk, ids };
        ids = [];
      }
      if (ids.length === 0) firstChunk = chunk;
      ids.push(id);
    }
  }
  if (ids.length > 0) yield { firstChunk, ids };
}

async function* extents(core: Core, keys: DomainKeys, tree: TreeRef): AsyncIterable<Extent> {
  let present = { offset: 0, end: 0 };
  const extent = (from: number, to: number, zero: boolean): Extent => ({
    offset: bytes(from),
    length: bytes(to - from),
    zero,
  });
  for await (const run of runs(core, keys, tree)) {
    const { offset, length } = runRange(run, tree.sizeBytes);
    if (offset === present.end) present.end += length;
    else {
      if (present.end > present.offset) yield extent(present.offset, present.end, false);
      yield extent(present.end, offset, true);
      present = { offset, end: offset + length };
    }
  }
  if (present.end > present.offset) yield extent(present.offset, present.end, false);
  if (present.end < tree.sizeBytes) yield extent(present.end, tree.sizeBytes, true);
}

async function readRange(core: Core, keys: DomainKeys, tree: TreeRef, offset: number, length: number): Promise<Buffer> {
  const end = offset + length;
  if (end > tree.sizeBytes)
    throw new StillpointError(
      "InternalError",
      `${length} bytes at ${offset} of a disk of ${tree.sizeBytes} were asked for`,
    );
  const out = Buffer.alloc(length);
  for await (const run of runs(core, keys, tree, Math.floor(offset / CHUNK_BYTES))) {
    const start = run.firstChunk * CHUNK_BYTES;
    if (start >= end) break;
    const needed = Math.ceil((end - start) / CHUNK_BYTES);
    const data = await readRun(core, keys, { ...run, ids: run.ids.slice(0, needed) });
    const from = Math.max(0, offset - start);
    out.set(data.subarray(from, Math.min(data.length, end - start)), start + from - offset);
  }
  return out;
}

async function* stream(
  core: Core,
  keys: DomainKeys,
  tree: TreeRef,
  signal?: AbortSignal,
): AsyncIterable<{ readonly offset: Bytes; readonly data: Uint8Array }> {
  const ahead: { readonly run: Run; readonly data: Promise<Uint8Array> }[] = [];
  const source = runs(core, keys, tree)[Symbol.asyncIterator]();
  let ended = false;
  try {
    while (true) {
      while (!ended && ahead.length < core.pool.workers * RUNS_AHEAD) {
        const next = await source.next();
        if (next.done) ended = true;
        else {
          const data = readRun(core, keys, next.value);
          data.catch(() => {}); // told when its turn comes
          ahead.push({ run: next.value, data });
        }
      }
      signal?.throwIfAborted();
      const oldest = ahead.shift();
      if (!oldest) return;
      const { offset, length } = runRange(oldest.run, tree.sizeBytes);
      yield { offset, data: (await oldest.data).subarray(0, length) };
    }
  } finally {
    await Promise.allSettled(ahead.map(({ data }) => data));
  }
}
