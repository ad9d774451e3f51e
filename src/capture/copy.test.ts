import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { bytes } from "../base/index.ts";
import { overlay } from "./copy.ts";
import type { ClassedExtent, Range } from "./ranges.ts";

const CHUNK = 65536;

test("damaged ranges are read again wherever they lie, and nothing else changes class", async () => {
  const seed = Number(process.env["SEED"] ?? randomBytes(4).readUInt32LE());
  console.log(`seed ${seed}`);
  let state = seed >>> 0;
  const below = (limit: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  for (let round = 0; round < 500; round++) {
    const chunks = 1 + below(60);
    const dirty = Array.from({ length: chunks }, () => below(2) === 0);
    const damaged = Array.from({ length: chunks }, () => below(5) === 0);
    const found: (boolean | undefined)[] = new Array(chunks).fill(undefined);
    let at = 0;
    for await (const extent of overlay(extentsOf(dirty), rangesOf(damaged))) {
      assert.equal(extent.offset, at, "adjoining");
      assert.ok(extent.length > 0);
      for (let c = at / CHUNK; c * CHUNK < at + extent.length; c++) found[c] = extent.data;
      at += extent.length;
    }
    assert.equal(at, chunks * CHUNK);
    assert.deepEqual(
      found,
      dirty.map((one, c) => one || damaged[c]),
    );
  }
});

async function* extentsOf(classes: readonly boolean[]): AsyncGenerator<ClassedExtent> {
  for (const [from, to] of runs(classes))
    yield { offset: from * CHUNK, length: (to - from) * CHUNK, data: classes[from] === true };
}

function rangesOf(classes: readonly boolean[]): readonly Range[] {
  return runs(classes)
    .filter(([from]) => classes[from])
    .map(([from, to]) => ({ offset: bytes(from * CHUNK), length: bytes((to - from) * CHUNK) }));
}

function runs(classes: readonly boolean[]): readonly (readonly [number, number])[] {
  const found: [number, number][] = [];
  for (let i = 0; i < classes.length; i++) {
    const last = found.at(-1);
    if (last && classes[last[0]] === classes[i]) last[1] = i + 1;
    else found.push([i, i + 1]);
  }
  return found;
}
