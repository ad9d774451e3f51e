import assert from "node:assert/strict";
import { appendFileSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemRandom } from "../../base/index.ts";
import { SLOT_BYTES } from "../format/pack.ts";
import { openChunkIndex } from "./chunk-index.ts";
import { IdTable } from "./id-table.ts";
import { PackSet } from "./packs.ts";

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "stillpoint-index-"));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const packId = (n: number) => n.toString(16).padStart(64, "0");
/** A pack's slot table of `count` ids; the first word may be the same for many, to make neighbours meet. */
function slotTable(count: number, sameStart = false): { readonly ids: Buffer[]; readonly slots: Buffer } {
  const slots = Buffer.alloc(count * SLOT_BYTES);
  const ids = Array.from({ length: count }, (_, slot) => {
    const id = systemRandom.bytes(32);
    if (sameStart) id.fill(7, 0, 8);
    id.copy(slots, slot * SLOT_BYTES);
    return id;
  });
  return { ids, slots };
}

test("the table finds every value of a prefix, grows, and knows what it does not hold", () => {
  const table = new IdTable();
  const ids = Array.from({ length: 50_000 }, () => systemRandom.bytes(32));
  for (const [n, id] of ids.entries()) table.add(id, n);
  table.add(ids[5] as Buffer, 77);
  assert.equal(table.size, 50_001);
  for (const [n, id] of ids.entries()) assert.ok(table.find(id, (value) => value === n) === n);
  const values: number[] = [];
  table.find(ids[5] as Buffer, (value) => values.push(value) < 0);
  assert.deepEqual(
    values.sort((a, b) => a - b),
    [5, 77],
  );
  for (let n = 0; n < 1000; n++) assert.equal(table.has(systemRandom.bytes(32)), false);
  let visited = 0;
  table.forEach((prefix, value) => {
    if (value !== 77) assert.ok(prefix.equals((ids[value] as Buffer).subarray(0, 16)));
    visited++;
  });
  assert.equal(visited, 50_001);
});

test("300,000 ids in 300 packs: found through flushes, merges and reopening, and nothing else is", async () => {
  await inFolder(async (folder) => {
    const packs = new PackSet();
    let index = openChunkIndex(folder, packs, systemRandom);
    const truth: { readonly id: Buffer; readonly pack: string }[] = [];
    for (let n = 0; n < 300; n++) {
      const pack = packs.add(packId(n), 1000);
      const { ids, slots } = slotTable(2000, n === 50);
      index.add(pack, { frames: [], slots });
      truth.push(...ids.map((id) => ({ id, pack: pack.id })));
    }
    const check = () => {
      for (let n = 0; n < truth.length; n += 37) {
        const { id, pack } = truth[n] as (typeof truth)[number];
        assert.ok(index.candidates(id).some((found) => found.id === pack));
      }
      let wrong = 0;
      for (let n = 0; n < 5000; n++) wrong += index.candidates(systemRandom.bytes(32)).length;
      assert.equal(wrong, 0);
    };
    check();
    await index.settle();
    check();
    const files = () => readdirSync(folder).filter((name) => name.endsWith(".seg")).length;
    assert.ok(files() < 9, `${files()} segments`);
    await index.close();
    index = openChunkIndex(folder, packs, systemRandom);
    assert.deepEqual(index.uncovered(), []);
    check();
    // Sorted views hold every record once, in order.
    let records = 0;
    for (const source of index.sorted()) {
      let last = Buffer.alloc(16);
      for (const page of source.pages())
        for (let at = 0; at < page.length; at += 20, records++) {
          const prefix = Buffer.from(page.subarray(at, at + 16));
          assert.ok(Buffer.compare(last, prefix) <= 0);
          last = prefix;
        }
    }
    assert.equal(records, truth.length);
    const gone = packs.get(packId(3));
    assert.ok(gone);
    packs.delete(gone);
    assert.deepEqual(index.candidates(truth[6000]?.id as Buffer), []);
    await index.close();
  });
});

test("an id that several packs hold names them all", async () => {
  await inFolder(async (folder) => {
    const packs = new PackSet();
    const index = openChunkIndex(folder, packs, systemRandom);
    const { ids, slots } = slotTable(10);
    for (let n = 0; n < 3; n++) index.add(packs.add(packId(n), 1), { frames: [], slots });
    await index.close();
    const again = openChunkIndex(folder, packs, systemRandom);
    again.add(packs.add(packId(9), 1), { frames: [], slots });
    assert.deepEqual(
      again
        .candidates(ids[4] as Buffer)
        .map((pack) => pack.id)
        .sort(),
      [0, 1, 2, 9].map(packId),
    );
    await again.close();
  });
});

test("torn, damaged and foreign files of the cache are dropped, and their packs read again", async () => {
  await inFolder(async (folder) => {
    const packs = new PackSet();
    const fill = async () => {
      const index = openChunkIndex(folder, packs, systemRandom);
      for (const pack of index.uncovered()) index.add(pack, { frames: [], slots: slotTable(500).slots });
      await index.close();
    };
    packs.add(packId(1), 1);
    await fill();
    const segment = () => join(folder, readdirSync(folder).find((name) => name.endsWith(".seg")) as string);
    for (const harm of [
      () => truncateSync(segment(), 100),
      () => writeFileSync(segment(), Buffer.alloc(5000)),
      () => writeFileSync(segment(), Buffer.alloc(0)),
    ]) {
      harm();
      appendFileSync(join(folder, "x.seg.tmp"), "torn");
      const index = openChunkIndex(folder, packs, systemRandom);
      assert.deepEqual(
        index.uncovered().map((pack) => pack.id),
        [packId(1)],
      );
      assert.deepEqual(readdirSync(folder), []);
      await index.close();
      await fill();
    }
  });
});
