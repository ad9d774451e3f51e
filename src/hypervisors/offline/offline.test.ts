import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { systemRandom } from "../../base/index.ts";
import { connectNbd, STATE_DIRTY } from "../../nbd/index.ts";
import { createOfflineExports, type OfflineExports } from "./index.ts";

const MiB = 1024 * 1024;
const dir = mkdtempSync(join(tmpdir(), "sp-off-"));
const runDir = join(dir, "run");
let offline: OfflineExports;
before(async () => {
  offline = await createOfflineExports({ runDir, random: systemRandom });
});
after(() => rmSync(dir, { recursive: true, force: true }));

const qemuImg = (...args: readonly string[]) => execFileSync("qemu-img", [...args], { stdio: "pipe" });

describe("images that no VM has open", () => {
  test("read-only: the bytes and the persistent bitmaps", async () => {
    const path = join(dir, "a.qcow2");
    qemuImg("create", "-f", "qcow2", path, "16M");
    qemuImg("bitmap", "--add", path, "rp-1");
    execFileSync("qemu-io", ["-f", "qcow2", "-c", "write -P 65 1M 64k", path], { stdio: "ignore" });
    qemuImg("bitmap", "--disable", path, "rp-1");
    const source = await offline.open({ path, format: "qcow2", writable: false, bitmaps: ["rp-1"] });
    try {
      const context = "qemu:dirty-bitmap:rp-1";
      const { socketPath, exportName } = source;
      const client = await connectNbd({ socketPath, exportName, metaContexts: [context] });
      assert.equal(client.readOnly, true);
      assert.ok((await client.read(MiB, 65536)).equals(Buffer.alloc(65536, 65)));
      const dirty = [];
      for await (const extent of client.extents(context, 0, client.sizeBytes))
        if (extent.flags & STATE_DIRTY) dirty.push([extent.offset, extent.length]);
      assert.deepEqual(dirty, [[MiB, 65536]]);
      assert.throws(
        () => execFileSync("qemu-io", ["-f", "qcow2", "-c", "write 0 512", path], { stdio: "pipe" }),
        /lock/,
      );
      await client.close();
    } finally {
      await source.close();
      await source.close();
    }
    assert.deepEqual(readdirSync(runDir), [], "no socket stays");
    execFileSync("qemu-io", ["-f", "qcow2", "-c", "write 0 512", path], { stdio: "pipe" });
  });

  test("writable: what was flushed is in the image after close", async () => {
    const data = randomBytes(3 * MiB);
    for (const format of ["raw", "qcow2"] as const) {
      const path = join(dir, `w.${format}`);
      qemuImg("create", "-f", format, path, "8M");
      const target = await offline.open({ path, format, writable: true });
      const client = await connectNbd({ socketPath: target.socketPath, exportName: target.exportName });
      await client.write(2 * MiB, data);
      await client.flush();
      await client.close();
      await target.close();
      const raw = join(dir, "w.out");
      qemuImg("convert", "-f", format, "-O", "raw", path, raw);
      const truth = Buffer.concat([Buffer.alloc(2 * MiB), data, Buffer.alloc(3 * MiB)]);
      assert.ok(readFileSync(raw).equals(truth), format);
    }
  });

  test("an image in use by another process is named", async () => {
    for (const format of ["raw", "qcow2"] as const) {
      const path = join(dir, `used.${format}`);
      qemuImg("create", "-f", format, path, "8M");
      const first = await offline.open({ path, format, writable: true });
      try {
        for (const writable of [true, false])
          await assert.rejects(offline.open({ path, format, writable }), {
            code: "OperationNotAllowed",
            message: /used\.\w+ is in use by another process\. Stop the program/,
          });
      } finally {
        await first.close();
      }
      const shared = await offline.open({ path, format, writable: false });
      await (await offline.open({ path, format, writable: false })).close();
      assert.throws(
        () => execFileSync("qemu-io", ["-f", format, "-c", "write 0 512", path], { stdio: "pipe" }),
        /lock/,
      );
      await shared.close();
    }
  });

  test("what a daemon refuses is told: no image, no bitmap, a hostile header, a hostile name", async () => {
    const path = join(dir, "b,driver=null.qcow2");
    await assert.rejects(offline.open({ path, format: "qcow2", writable: false }), { code: "InvalidParameter" });
    await assert.rejects(offline.open({ path, format: "raw", writable: false }), /No such file/);
    qemuImg("create", "-f", "qcow2", path.replaceAll(",", ",,"), "8M");
    writeFileSync(path, readFileSync(join(dir, "used.qcow2")));
    await (await offline.open({ path, format: "qcow2", writable: false })).close();
    await assert.rejects(offline.open({ path, format: "qcow2", writable: false, bitmaps: ["none"] }), /Bitmap 'none'/);
    const secret = join(dir, "secret");
    writeFileSync(secret, "do not show this");
    const outside = join(dir, "outside.qcow2");
    qemuImg("create", "-f", "qcow2", "-b", secret, "-F", "raw", outside, "8M");
    await assert.rejects(offline.open({ path: outside, format: "qcow2", writable: false }), /backing file/);
    qemuImg("create", "-f", "qcow2", "-o", `data_file=${secret},data_file_raw=on`, outside, "8M");
    await assert.rejects(offline.open({ path: outside, format: "qcow2", writable: false }), /data lie in another file/);
  });

  test("the daemon dies with the service, and the next service finds a clean folder", async () => {
    const path = join(dir, "die.raw");
    writeFileSync(path, Buffer.alloc(MiB));
    const program = `
      import { createOfflineExports } from ${JSON.stringify(new URL("./index.ts", import.meta.url).href)};
      import { systemRandom } from ${JSON.stringify(new URL("../../base/index.ts", import.meta.url).href)};
      const offline = await createOfflineExports({ runDir: ${JSON.stringify(join(dir, "run2"))}, random: systemRandom });
      await offline.open({ path: ${JSON.stringify(path)}, format: "raw", writable: true });
      console.log("open");
      setInterval(() => {}, 1000);`;
    const service = spawn(process.execPath, ["--input-type=module", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await new Promise((resolve) => service.stdout.once("data", resolve));
    await assert.rejects(offline.open({ path, format: "raw", writable: true }), { code: "OperationNotAllowed" });
    service.kill("SIGKILL");
    for (let n = 0; ; n++) {
      try {
        await (await offline.open({ path, format: "raw", writable: true })).close();
        break;
      } catch (error) {
        if (n === 50) throw error;
        await delay(100);
      }
    }
    assert.equal(readdirSync(join(dir, "run2")).length, 1);
    await createOfflineExports({ runDir: join(dir, "run2"), random: systemRandom });
    assert.deepEqual(readdirSync(join(dir, "run2")), []);
  });
});
