import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { type Bytes, bytes, systemRandom, type VmUid } from "../base/index.ts";
import type { DiskRestorePoint, Restores } from "../domain/index.ts";
import { createOfflineExports, type OfflineExports } from "../hypervisors/offline/index.ts";
import { createNvramStore, removePartials } from "../images/index.ts";
import type { DiskReader, TreeRef } from "../repository/index.ts";
import { createRestores } from "./index.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const VM = "0b9e0a52-8d0c-4d5e-9a3f-2f6a3c1d7e11" as VmUid;
const dir = mkdtempSync(join(tmpdir(), "sp-rec-"));
const pool = join(dir, "pool");
const nvramDir = join(dir, "nvram");
let offline: OfflineExports;

before(async () => {
  offline = await createOfflineExports({ runDir: join(dir, "run"), random: systemRandom });
});
beforeEach(() => {
  rmSync(pool, { recursive: true, force: true });
  mkdirSync(pool);
});
after(() => rmSync(dir, { recursive: true, force: true }));

/** What the repository promises of a reader, over bytes in memory. `breakAt`: the run at which it finds damage. */
function readerOf(disk: Buffer, state: { open: number }, breakAt = Number.POSITIVE_INFINITY): DiskReader {
  const zeroAt = (at: number) => disk.subarray(at, at + 64 * KiB).every((byte) => byte === 0);
  state.open++;
  return {
    sizeBytes: bytes(disk.length),
    async *extents() {
      for (let at = 0; at < disk.length; at += 64 * KiB)
        yield { offset: bytes(at), length: bytes(Math.min(64 * KiB, disk.length - at)), zero: zeroAt(at) };
    },
    read: async (offset, length) => disk.subarray(offset, offset + length),
    async *stream(signal) {
      let run = 0;
      for (let at = 0; at < disk.length; ) {
        signal?.throwIfAborted();
        if (zeroAt(at)) {
          at += 64 * KiB;
          continue;
        }
        let end = at;
        while (end < disk.length && end - at < MiB && !zeroAt(end)) end += 64 * KiB;
        if (++run >= breakAt) throw new Error("damaged");
        yield { offset: bytes(at), data: Buffer.from(disk.subarray(at, end)) };
        at = end;
      }
    },
    close: async () => void state.open--,
  };
}

interface Setup {
  readonly restores: Restores;
  readonly readers: { open: number };
  readonly source: DiskRestorePoint;
}

function setup(disk: Buffer, breakAt?: number): Setup {
  const readers = { open: 0 };
  const tree: TreeRef = { domain: "platform", root: "ab", sizeBytes: bytes(disk.length) };
  const restores = createRestores({
    repository: { openDisk: async () => readerOf(disk, readers, breakAt) },
    offline,
    nvram: createNvramStore(nvramDir, systemRandom),
    random: systemRandom,
  });
  return { restores, readers, source: { tree, sizeBytes: tree.sizeBytes } as DiskRestorePoint };
}

/** Data, holes of every kind, and a ragged end. */
function sampleDisk(sizeBytes: number): Buffer {
  const disk = Buffer.alloc(sizeBytes);
  for (let at = 192 * KiB; at < sizeBytes; at += 5 * MiB)
    randomBytes(Math.min(2 * MiB + 512, sizeBytes - at)).copy(disk, at);
  randomBytes(512).copy(disk, sizeBytes - 512);
  return disk;
}

function contentOf(path: string, format: string): Buffer {
  const raw = join(dir, "content.raw");
  execFileSync("qemu-img", ["convert", "-f", format, "-O", "raw", path, raw]);
  return readFileSync(raw);
}

const never = new AbortController().signal;

describe("restoring a disk", () => {
  for (const format of ["qcow2", "raw"] as const) {
    test(`${format}: every byte, sparse, into a larger disk too`, async () => {
      const disk = sampleDisk(33 * MiB + 512);
      const { restores, readers, source } = setup(disk);
      for (const extra of [0, 7 * MiB]) {
        const path = join(pool, `${extra}.${format}`);
        const told: number[] = [];
        const target = { path, format, sizeBytes: bytes(disk.length + extra) };
        await restores.restoreDisk(source, target, (fraction) => told.push(fraction), never);
        assert.ok(contentOf(path, format).equals(Buffer.concat([disk, Buffer.alloc(extra)])));
        assert.deepEqual(
          told,
          [...told].sort((a, b) => a - b),
          "progress never goes back",
        );
        assert.equal(told.at(-1), 1);
        assert.ok(statSync(path).blocks * 512 < 24 * MiB, "holes stay holes");
        assert.equal(statSync(path).mode & 0o777, 0o600);
        if (format === "qcow2") execFileSync("qemu-img", ["check", "-q", "-f", "qcow2", path]);
      }
      assert.deepEqual(readdirSync(pool).sort(), [`0.${format}`, `${7 * MiB}.${format}`]);
      assert.equal(readers.open, 0);
    });

    test(`${format}: damage in the repository, an abort and an existing image leave nothing behind`, async () => {
      const disk = sampleDisk(32 * MiB);
      const path = join(pool, `x.${format}`);
      const target = { path, format, sizeBytes: bytes(disk.length) };
      const damaged = setup(disk, 5);
      await assert.rejects(
        damaged.restores.restoreDisk(damaged.source, target, () => {}, never),
        /damaged/,
      );
      const abort = new AbortController();
      const aborted = setup(disk);
      const stopAtHalf = (fraction: number) => fraction > 0.5 && abort.abort(new Error("no longer wanted"));
      await assert.rejects(
        aborted.restores.restoreDisk(aborted.source, target, stopAtHalf, abort.signal),
        /no longer wanted/,
      );
      assert.deepEqual(readdirSync(pool), []);
      writeFileSync(path, "somebody's disk");
      const taken = setup(disk);
      await assert.rejects(
        taken.restores.restoreDisk(taken.source, target, () => {}, never),
        { code: "Conflict" },
      );
      assert.equal(readFileSync(path, "utf8"), "somebody's disk");
      assert.deepEqual(readdirSync(pool), [`x.${format}`]);
      assert.equal(damaged.readers.open + aborted.readers.open + taken.readers.open, 0);
    });
  }

  test("a target smaller than the point, and a record without a tree", async () => {
    const disk = sampleDisk(4 * MiB);
    const { restores, source } = setup(disk);
    const target = { path: join(pool, "s.raw"), format: "raw", sizeBytes: (3 * MiB) as Bytes } as const;
    await assert.rejects(
      restores.restoreDisk(source, target, () => {}, never),
      {
        code: "InvalidParameter",
        target: "properties.diskSizeGB",
      },
    );
    const broken = { ...source, tree: { root: 7 } };
    await assert.rejects(
      restores.restoreDisk(broken, target, () => {}, never),
      { code: "RepositoryDamaged" },
    );
    assert.deepEqual(readdirSync(pool), []);
  });

  test("what a killed service left is removed at the next start, and nothing else", async () => {
    const mine = ".stillpoint-partial-0011223344556677";
    for (const name of [mine, "disk.qcow2", ".hidden", "stillpoint-partial-1"]) writeFileSync(join(pool, name), "x");
    assert.deepEqual(await removePartials([pool, join(dir, "no-such-pool")]), [join(pool, mine)]);
    assert.deepEqual(readdirSync(pool).sort(), [".hidden", "disk.qcow2", "stillpoint-partial-1"]);
  });
});

test("a variable store is restored once, byte for byte", async () => {
  const store = Buffer.concat([randomBytes(100 * KiB), Buffer.alloc(428 * KiB)]);
  const { restores, source, readers } = setup(store);
  const path = await restores.restoreNvram(source.tree, VM);
  assert.equal(path, join(nvramDir, `${VM}.fd`));
  assert.ok(readFileSync(path).equals(store));
  assert.equal(statSync(path).mode & 0o777, 0o600);
  writeFileSync(path, "written by the guest");
  assert.equal(await restores.restoreNvram(source.tree, VM), path);
  assert.equal(readFileSync(path, "utf8"), "written by the guest");
  assert.deepEqual(readdirSync(nvramDir), [`${VM}.fd`]);
  assert.equal(readers.open, 0);
  assert.ok(existsSync(path));
});
