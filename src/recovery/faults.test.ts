import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { bytes, systemClock, systemRandom } from "../base/index.ts";
import type { DiskRestorePoint } from "../domain/index.ts";
import { createOfflineExports } from "../hypervisors/offline/index.ts";
import { createNvramStore, removePartials } from "../images/index.ts";
import { type DiskReader, openRepository } from "../repository/index.ts";
import { createRestores } from "./index.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const dir = mkdtempSync(join(tmpdir(), "sp-recf-"));
after(() => rmSync(dir, { recursive: true, force: true }));
const nvram = createNvramStore(join(dir, "nvram"), systemRandom);
const offline = await createOfflineExports({ runDir: join(dir, "run"), random: systemRandom });
const never = new AbortController().signal;

test("a point of the real repository comes back byte for byte", async () => {
  const disk = Buffer.alloc(21 * MiB + 512);
  for (let at = 0; at < disk.length; at += 4 * MiB) randomBytes(Math.min(MiB + 512, disk.length - at)).copy(disk, at);
  const repository = await openRepository({
    path: join(dir, "repository"),
    keyFile: join(dir, "key"),
    region: "local",
    cacheDir: join(dir, "cache"),
    workers: 2,
    clock: systemClock,
    random: systemRandom,
  });
  try {
    const point = await repository.beginPoint();
    const writer = await point.disk({ sizeBytes: bytes(disk.length), anchor: null });
    for (let at = 0; at < disk.length; at += MiB)
      await writer.write(bytes(at), Buffer.from(disk.subarray(at, at + MiB)));
    const { tree } = await writer.finish();
    await point.sync();
    const restores = createRestores({ repository, offline, nvram, random: systemRandom });
    const pool = join(dir, "pool");
    mkdirSync(pool);
    for (const format of ["raw", "qcow2"] as const) {
      const path = join(pool, `a.${format}`);
      const target = { path, format, sizeBytes: tree.sizeBytes };
      await restores.restoreDisk({ tree } as unknown as DiskRestorePoint, target, () => {}, never);
      const raw = join(dir, "out.raw");
      execFileSync("qemu-img", ["convert", "-f", format, "-O", "raw", path, raw]);
      assert.ok(readFileSync(raw).equals(disk), format);
    }
    await point.close();
  } finally {
    await repository.close();
  }
});

/** A disk of random bytes that tells when it was asked for its data, and then takes its time. */
function slowReader(sizeBytes: number, pauseMs: number): DiskReader {
  return {
    sizeBytes: bytes(sizeBytes),
    async *extents() {
      yield { offset: bytes(0), length: bytes(sizeBytes / 2), zero: false };
      yield { offset: bytes(sizeBytes / 2), length: bytes(sizeBytes / 2), zero: true };
    },
    read: async () => Buffer.alloc(0),
    async *stream() {
      for (let at = 0; at < sizeBytes; at += MiB) {
        await delay(pauseMs);
        yield { offset: bytes(at), data: randomBytes(MiB) };
      }
    },
    close: async () => {},
  };
}

function restoresOf(reader: DiskReader) {
  const restores = createRestores({
    repository: { openDisk: async () => reader },
    offline,
    nvram,
    random: systemRandom,
  });
  const tree = { domain: "platform", root: "ab", sizeBytes: reader.sizeBytes };
  return { restores, source: { tree, sizeBytes: reader.sizeBytes } as unknown as DiskRestorePoint };
}

const canMount = process.getuid?.() === 0 && spawnSync("unshare", ["-m", "true"]).status === 0;

/** Runs `work` with a file system of `kind` at a path of its own. */
async function mounted(kind: "tmpfs" | "ramfs", work: (path: string) => Promise<void>): Promise<void> {
  const path = join(dir, kind);
  mkdirSync(path, { recursive: true });
  execFileSync("mount", ["-t", kind, "-o", kind === "tmpfs" ? "size=16m" : "mode=0700", "none", path]);
  try {
    await work(path);
  } finally {
    execFileSync("umount", [path]);
  }
}

describe("pools that are full or plain", { skip: canMount ? false : "needs the right to mount" }, () => {
  for (const format of ["raw", "qcow2"] as const) {
    test(`${format}: what surely does not fit is refused at once; what then does not, is undone`, () =>
      mounted("tmpfs", async (pool) => {
        const target = { path: join(pool, `x.${format}`), format, sizeBytes: bytes(40 * MiB) };
        const early = restoresOf(slowReader(40 * MiB, 0));
        await assert.rejects(
          early.restores.restoreDisk(early.source, target, () => {}, never),
          {
            code: "InsufficientSpace",
            message: /has 20971520 bytes of data; \d+ bytes are free/,
          },
        );
        const lying = slowReader(40 * MiB, 0);
        const late = restoresOf({ ...lying, async *extents() {} });
        await assert.rejects(
          late.restores.restoreDisk(late.source, target, () => {}, never),
          {
            code: "InsufficientSpace",
            message: /ran full|no space left/,
          },
        );
        assert.deepEqual(readdirSync(pool), []);
      }));
  }

  test("a file system without direct I/O serves too", () =>
    mounted("ramfs", async (pool) => {
      const reader = slowReader(4 * MiB, 0);
      const { restores, source } = restoresOf(reader);
      const target = { path: join(pool, "x.qcow2"), format: "qcow2", sizeBytes: bytes(4 * MiB) } as const;
      await restores.restoreDisk(source, target, () => {}, never);
      assert.deepEqual(readdirSync(pool), ["x.qcow2"]);
    }));
});

describe("a service killed in the midst of a restore", () => {
  for (const format of ["raw", "qcow2"] as const)
    test(`${format}: leaves a partial image that the next start removes, and no daemon`, async () => {
      const pool = join(dir, `killed-${format}`);
      mkdirSync(pool);
      const service = spawn(process.execPath, ["--input-type=module", "-e", serviceProgram(pool, format)], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      await new Promise((resolve) => service.stdout.once("data", resolve));
      service.kill("SIGKILL");
      await new Promise((resolve) => service.once("exit", resolve));
      const left = readdirSync(pool);
      assert.equal(left.length, 1, "nothing under the final name");
      const partial = join(pool, left[0] as string);
      await freeOf(partial, format);
      assert.deepEqual(await removePartials([pool]), [partial]);
      assert.deepEqual(readdirSync(pool), []);
    });
});

/** Waits until no process has the image open for writing any more: opening it ourselves says so. */
async function freeOf(path: string, format: "raw" | "qcow2"): Promise<void> {
  for (let n = 0; ; n++) {
    try {
      return await (await offline.open({ path, format, writable: true })).close();
    } catch (error) {
      if (n === 50) throw error;
      await delay(100);
    }
  }
}

function serviceProgram(pool: string, format: string): string {
  const from = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
  return `
    import { systemRandom } from ${from("../base/index.ts")};
    import { createOfflineExports } from ${from("../hypervisors/offline/index.ts")};
    import { createNvramStore } from ${from("../images/index.ts")};
    import { createRestores } from ${from("./index.ts")};
    const dir = ${JSON.stringify(`${pool}-run`)};
    const offline = await createOfflineExports({ runDir: dir, random: systemRandom });
    const reader = {
      sizeBytes: 64 << 20,
      async *extents() {},
      async *stream() {
        for (let at = 0; at < 64; at++) {
          await new Promise((resolve) => setTimeout(resolve, 20));
          yield { offset: at << 20, data: Buffer.alloc(1 << 20, at) };
        }
      },
      close: async () => {},
    };
    const restores = createRestores({
      repository: { openDisk: async () => reader },
      offline,
      nvram: createNvramStore(dir, systemRandom),
      random: systemRandom,
    });
    const source = { tree: { domain: "d", root: "r", sizeBytes: 64 << 20 } };
    const target = { path: ${JSON.stringify(join(pool, `x.${format}`))}, format: "${format}", sizeBytes: 64 << 20 };
    await restores.restoreDisk(source, target, (f) => f > 0.2 && console.log(f), new AbortController().signal);`;
}
