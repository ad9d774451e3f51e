import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { bytes, GiB, MiB } from "../base/index.ts";
import { admit, exhausted, SPACE_RULE, type Space } from "./space.ts";

const EXT4 = 0xef53;

function space(freeGiB: number, totalGiB: number, type = EXT4): Space {
  return { freeBytes: bytes(Math.floor(freeGiB * GiB)), totalBytes: bytes(totalGiB * GiB), type };
}

const admitted = (where: Space, reserve: number) => admit(where, reserve, SPACE_RULE, "/capture");

describe("room in the capture folder", () => {
  test("10 % must stay free on a large file system, 2 GiB on a small one", () => {
    admitted(space(11, 100), GiB);
    assert.throws(() => admitted(space(11, 100), GiB + 1), { code: "InsufficientSpace" });
    admitted(space(3, 10), GiB);
    assert.throws(() => admitted(space(3, 10), GiB + 1), { code: "InsufficientSpace" });
  });

  test("file systems that cannot keep a promise are refused by name of what can", () => {
    for (const type of [0x6969, 0x9123683e, 0x2fc12fc1, 0x65735546])
      assert.throws(() => admitted(space(90, 100, type), MiB), /cannot reserve space.*ext4, xfs/);
  });

  test("a running capture is given up at half of what a new one is asked for", () => {
    assert.equal(exhausted(space(5, 100), SPACE_RULE), false);
    assert.equal(exhausted(space(4.9, 100), SPACE_RULE), true);
    assert.equal(exhausted(space(1, 10), SPACE_RULE), false);
    assert.equal(exhausted(space(0.9, 10), SPACE_RULE), true);
  });
});
