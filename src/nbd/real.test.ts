import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { connectNbd, type NbdClient, type NbdExtent, STATE_DIRTY, STATE_ZERO } from "./index.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const dir = mkdtempSync(join(tmpdir(), "sp-nbd-"));
after(() => rmSync(dir, { recursive: true, force: true }));

let servers = 0;

/** Runs `work` against a qemu-nbd that exports what `args` say, and ends it. */
async function serving(args: readonly string[], work: (socketPath: string) => Promise<void>): Promise<void> {
  const socketPath = join(dir, `s${++servers}`);
  const child = spawn("qemu-nbd", ["-t", "-k", socketPath, "-e", "4", ...args], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  try {
    for (let n = 0; !existsSync(socketPath) && n < 500; n++) await delay(10);
    await work(socketPath);
  } finally {
    child.kill("SIGKILL");
    await ended;
  }
}

async function withClient(
  options: Parameters<typeof connectNbd>[0],
  work: (client: NbdClient) => Promise<void>,
): Promise<void> {
  const client = await connectNbd(options);
  try {
    await work(client);
  } finally {
    await client.close();
  }
}

async function all(extents: AsyncIterable<NbdExtent>): Promise<NbdExtent[]> {
  const out: NbdExtent[] = [];
  for await (const extent of extents) out.push(extent);
  return out;
}

/** Adjoining from `offset`, `length` bytes in all, no run empty. */
function assertCovers(extents: readonly NbdExtent[], offset: number, length: number): void {
  let at = offset;
  for (const extent of extents) {
    assert.equal(extent.offset, at);
    assert.ok(extent.length > 0);
    at += extent.length;
  }
  assert.equal(at, offset + length);
}

async function readAll(client: NbdClient, step = 1 * MiB): Promise<Buffer> {
  const whole = Buffer.alloc(client.sizeBytes, 0xee);
  let next = 0;
  const reader = async () => {
    for (let at = next; at < whole.length; at = next) {
      next = at + step;
      await client.readInto(at, whole.subarray(at, at + step));
    }
  };
  await Promise.all(Array.from({ length: 12 }, reader));
  return whole;
}

const qemuImg = (...args: readonly string[]) => execFileSync("qemu-img", [...args], { encoding: "utf8" });

/** A disk with data, holes and a ragged end. */
function sampleDisk(sizeBytes: number): Buffer {
  const disk = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes; at += 3 * MiB) randomBytes(Math.min(MiB + 512, sizeBytes - at)).copy(disk, at);
  return disk;
}

describe("the NBD client with QEMU's servers", () => {
  test("reads a raw disk byte for byte, with every request size", async () => {
    const truth = sampleDisk(20 * MiB);
    const path = join(dir, "a.raw");
    writeFileSync(path, truth);
    await serving(["-r", "-f", "raw", path], (socketPath) =>
      withClient({ socketPath, exportName: "" }, async (client) => {
        assert.equal(client.sizeBytes, truth.length);
        assert.equal(client.readOnly, true);
        for (const step of [4 * KiB, 64 * KiB, 1000 * 512, MiB, 7 * MiB])
          assert.ok((await readAll(client, step)).equals(truth), `step ${step}`);
      }),
    );
  });

  test("a read larger than the server takes at once is cut", async () => {
    const truth = randomBytes(70 * MiB);
    const path = join(dir, "large.raw");
    writeFileSync(path, truth);
    await serving(["-r", "-f", "raw", path], (socketPath) =>
      withClient({ socketPath, exportName: "" }, async (client) => {
        assert.ok((await client.read(0, truth.length)).equals(truth));
      }),
    );
    rmSync(path);
  });

  test("a raw file of odd length is padded with zeroes to 512", async () => {
    const odd = randomBytes(3 * MiB + 77);
    const path = join(dir, "odd.raw");
    writeFileSync(path, odd);
    await serving(["-r", "-f", "raw", path], (socketPath) =>
      withClient({ socketPath, exportName: "", metaContexts: ["base:allocation"] }, async (client) => {
        assert.equal(client.sizeBytes, 3 * MiB + 512);
        const truth = Buffer.concat([odd, Buffer.alloc(512 - 77)]);
        assert.ok((await readAll(client)).equals(truth));
        assertCovers(await all(client.extents("base:allocation", 0, client.sizeBytes)), 0, client.sizeBytes);
      }),
    );
  });

  test("allocation of a qcow2: what bears ZERO is zero, and the rest is the data", async () => {
    const truth = sampleDisk(30 * MiB);
    const [raw, path] = [join(dir, "b.raw"), join(dir, "b.qcow2")];
    writeFileSync(raw, truth);
    qemuImg("convert", "-f", "raw", "-O", "qcow2", raw, path);
    await serving(["-r", "-f", "qcow2", path], (socketPath) =>
      withClient({ socketPath, exportName: "", metaContexts: ["base:allocation"] }, async (client) => {
        const extents = await all(client.extents("base:allocation", 0, client.sizeBytes));
        assertCovers(extents, 0, truth.length);
        const zero = extents.filter((extent) => extent.flags & STATE_ZERO);
        assert.ok(zero.length >= 5, "the holes show");
        for (const { offset, length } of zero) assert.ok(truth.subarray(offset, offset + length).every((b) => b === 0));
        assert.ok((await readAll(client)).equals(truth));
        const part = await all(client.extents("base:allocation", 64 * KiB, 5 * MiB));
        assertCovers(part, 64 * KiB, 5 * MiB);
      }),
    );
  });

  test("a dirty bitmap tells exactly the written chunks", async () => {
    const path = join(dir, "c.qcow2");
    qemuImg("create", "-f", "qcow2", path, "64M");
    qemuImg("bitmap", "--add", "-g", "65536", path, "rp-1");
    const chunks = [0, 3, 4, 500, 1023];
    for (const n of chunks)
      execFileSync("qemu-io", ["-f", "qcow2", "-c", `write -P 7 ${n * 64 * KiB + 512} 512`, path], { stdio: "ignore" });
    await serving(["-r", "-f", "qcow2", "-B", "rp-1", path], (socketPath) =>
      withClient(
        { socketPath, exportName: "", metaContexts: ["qemu:dirty-bitmap:rp-1", "base:allocation"] },
        async (client) => {
          const extents = await all(client.extents("qemu:dirty-bitmap:rp-1", 0, client.sizeBytes));
          assertCovers(extents, 0, 64 * MiB);
          const dirty = extents.filter((extent) => extent.flags & STATE_DIRTY);
          const told = dirty.flatMap(({ offset, length }) =>
            Array.from({ length: length / (64 * KiB) }, (_, n) => offset / (64 * KiB) + n),
          );
          assert.deepEqual(told, chunks);
        },
      ),
    );
    await serving(["-r", "-f", "qcow2", path], (socketPath) =>
      assert.rejects(
        connectNbd({ socketPath, exportName: "", metaContexts: ["qemu:dirty-bitmap:rp-1"] }),
        /has no meta context 'qemu:dirty-bitmap:rp-1'/,
      ),
    );
  });

  test("writes, zeroes, trims and flushes in any order reach the image", async () => {
    const truth = sampleDisk(24 * MiB);
    const path = join(dir, "w.qcow2");
    qemuImg("create", "-f", "qcow2", path, String(truth.length));
    await serving(["-f", "qcow2", path], (socketPath) =>
      withClient({ socketPath, exportName: "", depth: 4 }, async (client) => {
        assert.equal(client.readOnly, false);
        const writes: Promise<void>[] = [];
        for (let at = truth.length - MiB; at >= 0; at -= MiB)
          writes.push(client.write(at, truth.subarray(at, at + MiB)));
        await Promise.all(writes);
        await client.zero(2 * MiB, 512);
        await client.zero(5 * MiB, MiB, { allocate: true });
        await client.trim(9 * MiB, 64 * KiB);
        await client.zero(9 * MiB, 64 * KiB);
        await client.flush();
        truth
          .fill(0, 2 * MiB, 2 * MiB + 512)
          .fill(0, 5 * MiB, 6 * MiB)
          .fill(0, 9 * MiB, 9 * MiB + 64 * KiB);
        assert.ok((await readAll(client)).equals(truth));
      }),
    );
    const raw = join(dir, "w.raw");
    qemuImg("convert", "-f", "qcow2", "-O", "raw", path, raw);
    assert.ok(readFileSync(raw).equals(truth), "qemu-img sees the same");
  });

  test("a refused request fails alone; the connection goes on", async () => {
    const path = join(dir, "ro.raw");
    writeFileSync(path, randomBytes(MiB));
    await serving(["-r", "-f", "raw", path], (socketPath) =>
      withClient({ socketPath, exportName: "" }, async (client) => {
        await assert.rejects(client.write(0, Buffer.alloc(512)), { code: "InternalError" });
        assert.ok((await client.read(0, MiB)).equals(readFileSync(path)));
        await assert.rejects(client.read(MiB, 512), /is not inside/);
        await assert.rejects(client.read(0, MiB + 512), /is not inside/);
      }),
    );
  });

  test("a vanished server rejects what is outstanding and what comes after", async () => {
    const path = join(dir, "v.raw");
    writeFileSync(path, "");
    truncateSync(path, 512 * MiB);
    let kept: NbdClient | undefined;
    await serving(["-r", "-f", "raw", path], async (socketPath) => {
      kept = await connectNbd({ socketPath, exportName: "" });
      await kept.read(0, MiB);
    });
    await assert.rejects(async () => kept?.read(0, MiB), { code: "HypervisorUnavailable" });
    await kept?.close();
    await kept?.close();
  });

  test("no server, no such export", async () => {
    await assert.rejects(connectNbd({ socketPath: join(dir, "none"), exportName: "" }), {
      code: "HypervisorUnavailable",
    });
    const path = join(dir, "a.raw");
    await serving(["-r", "-f", "raw", "-x", "here", path], (socketPath) =>
      assert.rejects(connectNbd({ socketPath, exportName: "there" }), /declines the export of 'there'/),
    );
  });

  test("a sparse terabyte tells its allocation quickly and wholly", async () => {
    const path = join(dir, "t.qcow2");
    qemuImg("create", "-f", "qcow2", path, "1T");
    await serving(["-r", "-f", "qcow2", path], (socketPath) =>
      withClient({ socketPath, exportName: "", metaContexts: ["base:allocation"] }, async (client) => {
        const extents = await all(client.extents("base:allocation", 0, client.sizeBytes));
        assert.deepEqual(
          extents.map((e) => [e.offset, e.length, e.flags & STATE_ZERO]),
          [[0, 1024 ** 4, STATE_ZERO]],
        );
      }),
    );
  });

  test("throughput, for the reader of the log", async (t) => {
    const path = join(dir, "p.raw");
    writeFileSync(path, randomBytes(64 * MiB));
    for (let n = 0; n < 3; n++)
      execFileSync("sh", ["-c", `cat "${path}" "${path}" > "${path}.2" && mv "${path}.2" "${path}"`]);
    await serving(["-r", "-f", "raw", path], (socketPath) =>
      withClient({ socketPath, exportName: "", depth: 8 }, async (client) => {
        for (const step of [256 * KiB, MiB]) {
          const started = performance.now();
          const buffers = Array.from({ length: 8 }, () => Buffer.alloc(step));
          let next = 0;
          await Promise.all(
            buffers.map(async (buffer) => {
              for (let at = next; at < client.sizeBytes; at = next) {
                next = at + step;
                await client.readInto(at, buffer);
              }
            }),
          );
          const seconds = (performance.now() - started) / 1000;
          t.diagnostic(`${step / KiB} KiB x 8: ${Math.round(client.sizeBytes / 1e6 / seconds)} MB/s`);
        }
      }),
    );
  });
});
