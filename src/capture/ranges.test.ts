import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { bytes, CHUNK_BYTES } from "../base/index.ts";
import { type ClassedExtent, chunkRuns } from "./ranges.ts";

async function* each(extents: readonly ClassedExtent[]) {
  yield* extents;
}

test("every chunk with a byte of data is read and no other, whatever the grain of the extents", async () => {
  const seed = Number(process.env["SEED"] ?? randomBytes(4).readUInt32LE());
  console.log(`seed ${seed}`);
  let state = seed >>> 0;
  const random = (below: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  for (let round = 0; round < 400; round++) {
    const size = 512 * (1 + random(2000));
    const extents: ClassedExtent[] = [];
    const hasData = new Array<boolean>(Math.ceil(size / CHUNK_BYTES)).fill(false);
    for (let at = 0; at < size; ) {
      const length = Math.min(size - at, 512 * (1 + random(random(3) === 0 ? 700 : 20)));
      const data = random(2) === 0;
      extents.push({ offset: at, length, data });
      if (data) for (let c = Math.floor(at / CHUNK_BYTES); c * CHUNK_BYTES < at + length; c++) hasData[c] = true;
      at += length;
    }
    const found = new Array<boolean | undefined>(hasData.length).fill(undefined);
    let expected = 0;
    for await (const run of chunkRuns(each(extents), bytes(size))) {
      assert.equal(run.offset, expected);
      assert.equal(run.offset % CHUNK_BYTES, 0);
      expected += run.length;
      for (let c = run.offset / CHUNK_BYTES; c * CHUNK_BYTES < run.offset + run.length; c++) found[c] = run.data;
    }
    assert.equal(expected, size);
    assert.deepEqual(found, hasData);
  }
});

test("extents with a gap are refused, since something would be skipped", async () => {
  const gap = [
    { offset: 0, length: 4096, data: true },
    { offset: 8192, length: 57344, data: true },
  ];
  await assert.rejects(async () => {
    for await (const _ of chunkRuns(each(gap), bytes(65536)));
  }, RangeError);
  await assert.rejects(async () => {
    for await (const _ of chunkRuns(each([{ offset: 0, length: 4096, data: true }]), bytes(65536)));
  }, RangeError);
});
