import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemRandom } from "../../base/index.ts";
import { childId, decodeNode, FAN_OUT, isZeroId, nodeSpan, type TreeNode, ZERO_ID } from "../format/node.ts";
import { type Seeded, seeded } from "../testing/seeded.ts";
import { ChangeLog } from "./changes.ts";
import { type Base, mergeTree } from "./tree-merge.ts";

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "stillpoint-tree-"));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Nodes by their hash, and how many were stored. */
function store() {
  const nodes = new Map<string, Buffer>();
  return {
    nodes,
    emit: async (bytes: Buffer) => {
      const id = createHash("sha256").update(bytes).digest();
      nodes.set(id.toString("hex"), Buffer.from(bytes));
      return id;
    },
    load: async (id: Buffer, level: number): Promise<TreeNode> => {
      const bytes = nodes.get(id.toString("hex"));
      if (!bytes) throw new Error("lost");
      return decodeNode(bytes, level, "node");
    },
  };
}

/** Chunk ids of a tree, by chunk. */
async function chunksOf(nodes: ReturnType<typeof store>, root: Buffer, level: number): Promise<Map<number, string>> {
  const found = new Map<number, string>();
  const walk = async (id: Buffer, at: number, first: number): Promise<void> => {
    const node = await nodes.load(id, at);
    for (let slot = 0; slot < FAN_OUT; slot++) {
      const child = childId(node, slot);
      if (isZeroId(child)) continue;
      if (at === 0) found.set(first + slot, child.toString("hex"));
      else await walk(child, at - 1, first + slot * nodeSpan(at - 1));
    }
  };
  if (!isZeroId(root)) await walk(root, level, 0);
  return found;
}

/** Changes that do not overlap: single chunks and runs of zeroes, told in a shuffled order. */
function someChanges(random: Seeded, chunks: number) {
  const changes: { start: number; count: number; id: Buffer }[] = [];
  for (let at = 0; at < chunks; ) {
    const kind = random.below(4);
    const count = kind === 0 ? 1 + random.below(200) : 1 + random.below(40);
    const end = Math.min(chunks, at + count);
    if (kind === 0) changes.push({ start: at, count: end - at, id: ZERO_ID });
    else if (kind === 1)
      for (let chunk = at; chunk < end; chunk++) changes.push({ start: chunk, count: 1, id: random.bytes(32) });
    at = end;
  }
  return changes.sort(() => random.below(3) - 1);
}

test("trees with changes equal trees made in one go; what did not change is not stored again", async () => {
  const seed = systemRandom.bytes(4).toString("hex");
  const random = seeded(seed);
  await inFolder(async (folder) => {
    for (let round = 0; round < 25; round++) {
      const chunkCount = 1 + random.below(3000);
      const level = [1, 2, 3].find((at) => nodeSpan(at) >= chunkCount) ?? 3;
      const truth = new Map<number, string>();
      const nodes = store();
      let base: Base = null;
      for (let generation = 0; generation < 4; generation++) {
        const changes = new ChangeLog(folder, random);
        let differing = 0;
        for (const { start, count, id } of someChanges(random, chunkCount)) {
          changes.add(start, count, id);
          for (let chunk = start; chunk < start + count; chunk++) {
            const before = truth.get(chunk);
            if (isZeroId(id)) truth.delete(chunk);
            else truth.set(chunk, id.toString("hex"));
            if (before !== truth.get(chunk)) differing++;
          }
        }
        const merge: Parameters<typeof mergeTree>[0] = {
          ...nodes,
          base,
          rootLevel: level,
          chunkCount,
          changes: changes.inOrder(),
          isLost: () => false,
        };
        const { root, changedChunks } = await mergeTree(merge);
        changes.close();
        assert.equal(changedChunks, differing, `seed ${seed}`);
        assert.deepEqual(await chunksOf(nodes, root, level), truth, `seed ${seed}`);
        const fresh = store();
        const all = new ChangeLog(folder, random);
        for (const [chunk, id] of truth) all.add(chunk, 1, Buffer.from(id, "hex"));
        const anew = await mergeTree({
          ...fresh,
          base: null,
          rootLevel: level,
          chunkCount,
          changes: all.inOrder(),
          isLost: () => false,
        });
        assert.deepEqual(anew.root, root, `the same disk has the same root; seed ${seed}`);
        const before = nodes.nodes.size;
        const none = await mergeTree({
          ...merge,
          base: isZeroId(root) ? null : { level, id: root },
          changes: [][Symbol.iterator](),
        });
        assert.deepEqual(none, { root, changedChunks: 0 });
        assert.equal(nodes.nodes.size, before);
        base = isZeroId(root) ? null : { level, id: root };
      }
    }
  });
});

test("a lost subtree is whole again when all of it is written, and named when it is not", async () => {
  await inFolder(async (folder) => {
    const random = seeded("lost");
    const nodes = store();
    const ids = Array.from({ length: 100 }, () => random.bytes(32));
    const first = new ChangeLog(folder, random);
    for (const [chunk, id] of ids.entries()) first.add(chunk, 1, id);
    const common = {
      ...nodes,
      rootLevel: 1,
      chunkCount: 100,
      isLost: (error: unknown) => (error as Error).message === "lost",
    };
    const { root } = await mergeTree({ ...common, base: null, changes: first.inOrder() });
    const leaf = childId(await nodes.load(root, 1), 1);
    nodes.nodes.delete(leaf.toString("hex"));
    const base = { level: 1, id: root };
    const partly = new ChangeLog(folder, random);
    partly.add(40, 1, random.bytes(32));
    await assert.rejects(mergeTree({ ...common, base, changes: partly.inOrder() }), /lost/);
    const wholly = new ChangeLog(folder, random);
    for (let chunk = 32; chunk < 64; chunk++) wholly.add(chunk, 1, ids[chunk] as Buffer);
    assert.deepEqual((await mergeTree({ ...common, base, changes: wholly.inOrder() })).root, root);
    nodes.nodes.delete(leaf.toString("hex"));
    const zeroed = new ChangeLog(folder, random);
    zeroed.add(32, 32, ZERO_ID);
    const chunks = await chunksOf(nodes, (await mergeTree({ ...common, base, changes: zeroed.inOrder() })).root, 1);
    assert.equal(chunks.size, 68);
  });
});

test("300,000 changes in any order come back in disk order, from bounded memory, and leave no file", async () => {
  await inFolder(async (folder) => {
    const random = seeded("spill");
    const log = new ChangeLog(join(folder, "tmp"), random);
    const count = 300_000;
    const id = (chunk: number) => Buffer.alloc(32, `${chunk}/`);
    // A permutation by a step that shares no factor with the count.
    for (let n = 0; n < count; n++) {
      const chunk = (n * 77_773) % count;
      log.add(chunk * 3, 1 + (chunk % 2), id(chunk));
    }
    assert.equal(readdirSync(join(folder, "tmp")).length, 2);
    let next = 0;
    for (const change of log.inOrder()) {
      assert.equal(change.start, next * 3);
      assert.equal(change.count, 1 + (next % 2));
      if (next % 1000 === 0) assert.deepEqual(Buffer.from(change.id), id(next));
      next++;
    }
    assert.equal(next, count);
    log.close();
    assert.deepEqual(readdirSync(join(folder, "tmp")), []);
  });
});
