import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, describe, test } from "node:test";
import { type Bytes, bytes, type DiskUid, systemRandom, type VmUid } from "../base/index.ts";
import type { Images } from "../domain/index.ts";
import { createImages, createNvramStore } from "./index.ts";

const MiB = 1024 * 1024;
const VM = "0b9e0a52-8d0c-4d5e-9a3f-2f6a3c1d7e11" as VmUid;
const DISK = "5f1c1b1e-6b7e-4f53-9d3b-0a5f8a4a2c10" as DiskUid;
const dir = mkdtempSync(join(tmpdir(), "sp-img-"));
const fast = join(dir, "fast");
const slow = join(dir, "slow");
const nvram = createNvramStore(join(dir, "data/nvram"), systemRandom);
const template = join(dir, "VARS.fd");
let images: Images;

after(() => rmSync(dir, { recursive: true, force: true }));
beforeEach(() => {
  for (const pool of [fast, slow]) {
    rmSync(pool, { recursive: true, force: true });
    mkdirSync(join(pool, "sub"), { recursive: true, mode: 0o755 });
  }
  writeFileSync(template, "as the firmware ships it");
  images = createImages({
    host: "host1",
    pools: [
      { name: "fast", path: fast },
      { name: "slow", path: slow },
    ],
    skus: { Premium_LRS: { pool: "fast", format: "qcow2" }, Standard_LRS: { pool: "slow", format: "raw" } },
    firmwareVarsPath: template,
    nvram,
    random: systemRandom,
  });
});

const isRoot = process.getuid?.() === 0;
const refused = { code: "InvalidParameter" };

describe("pool paths", () => {
  test("a file in a pool is found", async () => {
    for (const name of ["a.qcow2", "sub/b c,d.raw", "sub/%2e%2e.img"]) {
      writeFileSync(join(fast, name), "x");
      assert.equal(await images.resolve(`pool://host1/fast/${name}`), join(fast, name));
      assert.equal(await images.confine(join(fast, name)), join(fast, name));
    }
  });

  test("what is no pool path is refused", async () => {
    writeFileSync(join(fast, "a.qcow2"), "x");
    writeFileSync(join(fast, "a.vmdk"), "x");
    writeFileSync(join(dir, "outside.qcow2"), "x");
    mkdirSync(join(fast, "folder.qcow2"));
    execFileSync("mkfifo", [join(fast, "pipe.raw")]);
    writeFileSync(join(fast, ".stillpoint-partial-00ff.raw"), "x");
    for (const uri of [
      "",
      "/etc/passwd",
      "file:///etc/passwd",
      "https://host1/fast/a.qcow2",
      "pool://host1/fast",
      "pool://host1/fast/",
      "pool://host2/fast/a.qcow2",
      "pool://host1/other/a.qcow2",
      "pool://host1/fast/../outside.qcow2",
      "pool://host1/fast/sub/../../outside.qcow2",
      "pool://host1/fast/./a.qcow2",
      "pool://host1/fast//a.qcow2",
      "pool://host1/../fast/a.qcow2",
      "pool://host1/fast/a.qcow2\0.raw",
      "pool://host1/fast/a\n.qcow2",
      "pool://host1/fast/none.qcow2",
      "pool://host1/fast/a.qcow2/b.raw",
      "pool://host1/fast/a.vmdk",
      "pool://host1/fast/folder.qcow2",
      "pool://host1/fast/pipe.raw",
      "pool://host1/fast/.stillpoint-partial-00ff.raw",
      `pool://host1/fast/${"a/".repeat(3000)}b.raw`,
    ])
      await assert.rejects(images.resolve(uri), refused, uri);
    for (const path of [
      join(dir, "outside.qcow2"),
      `${fast}/../outside.qcow2`,
      fast,
      `${fast}/`,
      "a.qcow2",
      `${fast}x/a`,
    ])
      await assert.rejects(images.confine(path), refused, path);
  });

  test("a symbolic link anywhere is refused", async () => {
    writeFileSync(join(slow, "secret.raw"), "x");
    symlinkSync(join(slow, "secret.raw"), join(fast, "link.raw"));
    symlinkSync(slow, join(fast, "linked"));
    await assert.rejects(images.resolve("pool://host1/fast/link.raw"), /is a symbolic link/);
    await assert.rejects(images.resolve("pool://host1/fast/linked/secret.raw"), /is a symbolic link/);
    renameSync(fast, join(dir, "moved"));
    symlinkSync(join(dir, "moved"), fast);
    writeFileSync(join(dir, "moved/a.raw"), "x");
    await assert.rejects(images.resolve("pool://host1/fast/a.raw"), /is a symbolic link/);
    rmSync(fast);
    rmSync(join(dir, "moved"), { recursive: true });
  });

  test("what others can change is refused", async () => {
    const path = join(fast, "sub/a.raw");
    writeFileSync(path, "x");
    for (const place of [path, join(fast, "sub"), fast, dir]) {
      const mode = statSync(place).mode & 0o7777;
      for (const open of [0o020, 0o002]) {
        chmodSync(place, mode | open);
        await assert.rejects(images.resolve("pool://host1/fast/sub/a.raw"), /written by others.*chmod go-w/, place);
      }
      chmodSync(place, mode);
    }
    chmodSync(fast, 0o1777);
    await assert.rejects(images.resolve("pool://host1/fast/sub/a.raw"), /written by others/, "a sticky pool");
    chmodSync(fast, 0o755);
    const mode = statSync(dir).mode & 0o7777;
    chmodSync(dir, 0o1777);
    assert.equal(await images.resolve("pool://host1/fast/sub/a.raw"), path, "a sticky folder above the pool");
    chmodSync(dir, mode);
  });

  test("what others own is refused; an adopted VM's image itself may be theirs", { skip: !isRoot }, async () => {
    const path = join(fast, "sub/a.raw");
    writeFileSync(path, "x");
    chownSync(path, 12345, 12345);
    await assert.rejects(images.resolve("pool://host1/fast/sub/a.raw"), /belongs to user 12345/);
    assert.equal(await images.confine(path), path);
    chownSync(join(fast, "sub"), 12345, 12345);
    await assert.rejects(images.confine(path), /belongs to user 12345/);
  });
});

describe("images", () => {
  test("a new disk: empty, of the right make, durable under its name, and repeatable", async () => {
    const path = images.newPath(DISK, "Premium_LRS", "qcow2");
    assert.equal(path, join(fast, `${DISK}.qcow2`));
    for (let n = 0; n < 2; n++) await images.createEmpty(path, "qcow2", bytes(40 * MiB));
    const info = JSON.parse(execFileSync("qemu-img", ["info", "--output=json", path], { encoding: "utf8" }));
    assert.equal(info["virtual-size"], 40 * MiB);
    assert.equal(info["cluster-size"], 65536);
    assert.equal(info["format-specific"].data.compat, "1.1");
    assert.deepEqual(await images.inspect(path), { format: "qcow2", sizeBytes: 40 * MiB, rawFileBytes: null });
    const raw = images.newPath(DISK, "Standard_LRS", "raw");
    await images.createEmpty(raw, "raw", bytes(3 * MiB));
    assert.ok(readFileSync(raw).equals(Buffer.alloc(3 * MiB)));
    assert.deepEqual(readdirSync(fast).sort(), [`${DISK}.qcow2`, "sub"]);
    assert.equal(statSync(raw).mode & 0o777, 0o600);
    await assert.rejects(images.createEmpty(raw, "raw", bytes(4 * MiB)), { code: "Conflict" });
    assert.equal(statSync(raw).size, 3 * MiB);
    assert.throws(() => images.newPath(DISK, "Nonsense", "raw"), { code: "InvalidParameter", target: "sku.name" });
    await assert.rejects(images.createEmpty(join(dir, "out.raw"), "raw", bytes(MiB)), refused);
    await assert.rejects(images.createEmpty(join(fast, "big.qcow2"), "qcow2", (1024 ** 5) as Bytes), refused);
    await assert.rejects(images.createEmpty(join(fast, "none.raw"), "raw", bytes(0)), refused);
  });

  test("the format comes from the name, whatever the content", async () => {
    const path = join(fast, "trap.raw");
    const outside = join(dir, "outside.raw");
    writeFileSync(outside, "secret");
    execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", "-b", outside, "-F", "raw", path, "1M"]);
    const facts = await images.inspect(path);
    assert.equal(facts.format, "raw");
    assert.equal(facts.rawFileBytes ?? facts.sizeBytes, statSync(path).size);
    renameSync(path, join(fast, "trap.qcow2"));
    await assert.rejects(images.inspect(join(fast, "trap.qcow2")), /backing file/);
  });

  test("a raw file of odd length keeps both lengths; an empty one is refused", async () => {
    const path = join(fast, "odd.img");
    writeFileSync(path, Buffer.alloc(1));
    truncateSync(path, 67_109_001);
    assert.deepEqual(await images.inspect(path), { format: "raw", sizeBytes: 67_109_376, rawFileBytes: 67_109_001 });
    truncateSync(path, 0);
    await assert.rejects(images.inspect(path), /has 0 bytes/);
  });

  test("growing keeps the content and reads as zeroes beyond; shrinking is refused", async () => {
    for (const format of ["raw", "qcow2"] as const) {
      const path = join(fast, `g.${format}`);
      await images.createEmpty(path, format, bytes(2 * MiB));
      execFileSync("qemu-io", ["-f", format, "-c", "write -P 9 0 2M", path], { stdio: "ignore" });
      for (let n = 0; n < 2; n++) await images.grow(path, format, bytes(5 * MiB));
      assert.equal((await images.inspect(path)).sizeBytes, 5 * MiB);
      const raw = join(dir, "g.out");
      execFileSync("qemu-img", ["convert", "-f", format, "-O", "raw", path, raw]);
      assert.ok(readFileSync(raw).equals(Buffer.concat([Buffer.alloc(2 * MiB, 9), Buffer.alloc(3 * MiB)])));
      await assert.rejects(images.grow(path, format, bytes(MiB)), /cannot shrink/);
    }
    await assert.rejects(images.grow(join(fast, "none.raw"), "raw", bytes(MiB)), /does not exist/);
  });

  test("removing: only in pools and the store of variables; missing is fine", async () => {
    const path = join(fast, "r.raw");
    writeFileSync(path, "x");
    linkSync(path, join(fast, "other-name.raw"));
    for (let n = 0; n < 2; n++) await images.remove(path);
    assert.deepEqual(readdirSync(fast).sort(), ["other-name.raw", "sub"]);
    for (const outside of [
      template,
      join(fast, "../VARS.fd"),
      join(nvram.dir, "../nvram.fd"),
      `${nvram.dir}/../../VARS.fd`,
    ])
      await assert.rejects(images.remove(outside), refused, outside);
    assert.ok(existsSync(template));
  });

  test("a new VM gets its own variable store, once", async () => {
    const path = await images.createNvram(VM);
    assert.equal(readFileSync(path, "utf8"), "as the firmware ships it");
    writeFileSync(path, "written by the guest");
    assert.equal(await images.createNvram(VM), path);
    assert.equal(readFileSync(path, "utf8"), "written by the guest");
    assert.equal(statSync(path).mode & 0o777, 0o600);
    await images.remove(path);
    assert.deepEqual(readdirSync(nvram.dir), []);
    rmSync(template);
    await assert.rejects(images.createNvram(VM), /Install ovmf/);
    assert.deepEqual(readdirSync(nvram.dir), []);
  });
});
