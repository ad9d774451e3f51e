import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { parseQcow2, QCOW2_HEADER_BYTES } from "./qcow2.ts";

const dir = mkdtempSync(join(tmpdir(), "sp-qcow2-"));
after(() => rmSync(dir, { recursive: true, force: true }));

const cache = new Map<string, Buffer>();

/** A new image of qemu-img's making, for this caller alone. */
function made(options: string, size = "1G", ...more: readonly string[]): Buffer {
  const key = [options, size, ...more].join(" ");
  const known = cache.get(key);
  if (known) return Buffer.from(known);
  const path = join(dir, "x.qcow2");
  rmSync(path, { force: true });
  execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", ...(options ? ["-o", options] : []), ...more, path, size]);
  cache.set(key, readFileSync(path));
  return readFileSync(path);
}

function parse(image: Buffer) {
  return parseQcow2(image.subarray(0, QCOW2_HEADER_BYTES), image.length);
}

describe("the qcow2 header", () => {
  const sound: readonly [string, string, number][] = [
    ["", "1G", 1024 ** 3],
    ["compat=0.10", "1G", 1024 ** 3],
    ["", "512", 512],
    ["", "1000001", 1000448],
    ["", "16T", 16 * 1024 ** 4],
    ["cluster_size=512", "64M", 64 * 1024 ** 2],
    ["cluster_size=2M", "1T", 1024 ** 4],
    ["extended_l2=on,cluster_size=128k", "1G", 1024 ** 3],
    ["compression_type=zstd", "1G", 1024 ** 3],
    ["lazy_refcounts=on,refcount_bits=1", "1G", 1024 ** 3],
    ["preallocation=metadata", "16M", 16 * 1024 ** 2],
  ];
  for (const [options, size, expected] of sound)
    test(`what qemu-img makes is taken: ${options || "default"} ${size}`, () => {
      assert.equal(parse(made(options, size)).sizeBytes, expected);
    });

  test("bitmaps and snapshots are no hindrance", () => {
    const path = join(dir, "b.qcow2");
    writeFileSync(path, made(""));
    execFileSync("qemu-img", ["bitmap", "--add", path, "rp-1"]);
    execFileSync("qemu-img", ["snapshot", "-c", "before", path]);
    assert.equal(parse(readFileSync(path)).version, 3);
  });

  test("what reaches outside the file, or cannot be read, is refused", () => {
    const base = join(dir, "base.raw");
    writeFileSync(base, Buffer.alloc(1024 * 1024));
    assert.throws(() => parse(made("", "1G", "-b", base, "-F", "raw")), /backing file.*Flatten it/s);
    assert.throws(() => parse(made(`data_file=${join(dir, "data.raw")}`)), /data lie in another file/);
    const secret = ["--object", "secret,id=s,data=abc"];
    assert.throws(() => parse(made("encrypt.format=aes,encrypt.key-secret=s", "1G", ...secret)), /encrypted/);
    assert.throws(() => parse(Buffer.alloc(1024)), /no qcow2 header/);
    assert.throws(() => parse(made("").subarray(0, 60)), /no qcow2 header/);
    assert.throws(() => parse(made("").subarray(0, 80)), { code: "InvalidParameter" });
    assert.throws(() => parse(made("").subarray(0, 128 * 1024)), /cut short/);
  });

  /** [what, offset, width in bytes, value] on an image that is sound without it. */
  const forged: readonly [string, number, 4 | 8, bigint][] = [
    ["an unknown version", 4, 4, 4n],
    ["version 1", 4, 4, 1n],
    ["a backing file name without a place", 16, 4, 9n],
    ["a backing file", 8, 8, 0x1000n],
    ["tiny clusters", 20, 4, 8n],
    ["huge clusters", 20, 4, 22n],
    ["absurd clusters", 20, 4, 0xffff_ffffn],
    ["no size", 24, 8, 0n],
    ["an absurd size", 24, 8, 0xffff_ffff_ffff_fe00n],
    ["a size beyond 64 TiB", 24, 8, 64n * 1024n ** 4n + 512n],
    ["a ragged size", 24, 8, 1000n],
    ["a size that its table cannot hold", 24, 8, 2n * 1024n ** 3n],
    ["AES", 32, 4, 1n],
    ["LUKS", 32, 4, 2n],
    ["no table", 36, 4, 0n],
    ["an endless table", 36, 4, 0xffff_ffffn],
    ["a table nowhere", 40, 8, 0n],
    ["a table beyond the file", 40, 8, 0x4000_0000n],
    ["a ragged table", 40, 8, 0x30200n],
    ["refcounts nowhere", 48, 8, 0n],
    ["refcounts beyond the file", 48, 8, 0x4000_0000_0000_0000n],
    ["endless refcounts", 56, 4, 0xffff_ffffn],
    ["endless snapshots", 60, 4, 0xffff_ffffn],
    ["snapshots beyond the file", 64, 8, 0x7fff_ffff_ffff_0000n],
    ["a corrupt mark", 72, 8, 2n],
    ["a data file", 72, 8, 4n],
    ["an unknown feature", 72, 8, 32n],
    ["a far unknown feature", 72, 8, 1n << 63n],
    ["wide refcounts", 96, 4, 7n],
    ["a short header", 100, 4, 72n],
    ["a ragged header", 100, 4, 111n],
    ["an endless header", 100, 4, 0xffff_fff8n],
    ["an unknown compression", 104, 4, 0x0200_0000n],
    ["an extension without an end", 116, 4, 0xffff_ffffn],
    ["a data file's name", 112, 4, 0x44415441n],
    ["an encryption header", 112, 4, 0x0537be77n],
  ];
  for (const [what, offset, width, value] of forged)
    test(`forged: ${what}`, () => {
      const image = made("");
      assert.equal(parse(image).sizeBytes, 1024 ** 3);
      if (width === 4) image.writeUInt32BE(Number(value), offset);
      else image.writeBigUInt64BE(value, offset);
      assert.throws(() => parse(image), { code: "InvalidParameter", message: /^The image cannot be used: / });
    });

  test("no bytes make it fail in another way", (t) => {
    const seed = Math.trunc(performance.timeOrigin);
    t.diagnostic(`seed ${seed}`);
    let state = seed >>> 0;
    const next = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state >>> 8;
    };
    const image = made("").subarray(0, 1024);
    for (let n = 0; n < 20_000; n++) {
      const forgery = Buffer.from(image);
      for (let flips = 1 + (next() % 4); flips > 0; flips--) forgery[next() % 600] = next() & 0xff;
      try {
        const facts = parseQcow2(forgery, 1024 * 1024);
        assert.ok(facts.sizeBytes > 0 && facts.sizeBytes % 512 === 0);
      } catch (error) {
        assert.equal((error as { code?: string }).code, "InvalidParameter");
      }
    }
  });
});
