/** A second program that reads a repository, written from docs/repository-format.md alone: it imports nothing of ours. */
import assert from "node:assert/strict";
import { createDecipheriv, createHash, createHmac, hkdfSync } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { crc32, zstdDecompressSync } from "node:zlib";

const golden = fileURLToPath(new URL("./golden", import.meta.url));
const NONE = Buffer.alloc(0);

const derive = (secret: Buffer, salt: Buffer, purpose: string) =>
  Buffer.from(hkdfSync("sha256", secret, salt, `stillpoint/1/${purpose}`, 32));

function unseal(key: Buffer, ordinal: number, aad: Buffer, sealed: Buffer): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32LE(ordinal);
  const decipher = createDecipheriv("aes-256-gcm", key, nonce).setAAD(aad);
  decipher.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([decipher.update(sealed.subarray(0, -16)), decipher.final()]);
}

class Reader {
  readonly #secret: Buffer;
  readonly #objects = new Map<string, Buffer>();
  readonly #where = new Map<string, Buffer>();

  constructor(folder: string) {
    const key = /^key: (\w{64})$/m.exec(readFileSync(join(folder, "key"), "utf8"))?.[1] as string;
    this.#secret = Buffer.from(key, "hex");
    const root = join(folder, "repository");
    for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      this.#objects.set(path.slice(root.length + 1), readFileSync(path));
    }
    for (const [name, pack] of this.#objects) if (name.startsWith("packs/")) this.#readPack(pack);
  }

  object(name: string): Buffer {
    const found = this.#objects.get(name);
    assert.ok(found, name);
    return found;
  }

  header(): { readonly keyId: string; readonly platformDomain: string } {
    const bytes = this.object("repository");
    const end = bytes.length - 32;
    assert.deepEqual(createHash("sha256").update(bytes.subarray(0, end)).digest(), bytes.subarray(end));
    const mac = createHmac("sha256", derive(this.#secret, NONE, "header"))
      .update(bytes.subarray(0, end - 32))
      .digest();
    assert.deepEqual(mac, bytes.subarray(end - 32, end));
    return JSON.parse(bytes.toString("utf8", 68, 68 + bytes.readUInt32LE(64)));
  }

  sealed(kind: string, object: string, name = object): { readonly clear: Buffer; readonly content: Buffer } {
    const bytes = this.object(object);
    assert.equal(bytes.toString("latin1", 0, 8), "STLPOINT");
    const clearEnd = 100 + bytes.readUInt32LE(96);
    const aad = Buffer.concat([bytes.subarray(0, clearEnd), Buffer.from(name)]);
    const key = derive(this.#secret, bytes.subarray(64, 96), `sealed/${kind}`);
    return { clear: bytes.subarray(100, clearEnd), content: unseal(key, 0, aad, bytes.subarray(clearEnd)) };
  }

  domain(id: string): Buffer {
    return this.sealed("domainKey", `domains/${id}`).content;
  }

  #readPack(pack: Buffer): void {
    const domain = pack.subarray(32, 48);
    const id = pack.subarray(64, 96);
    const key = derive(this.domain(domain.toString("hex")), id, "pack");
    const trailer = pack.subarray(-32);
    assert.equal(trailer.toString("latin1", 24), "STLPTEND");
    assert.equal(trailer.readUInt32LE(16), crc32(trailer.subarray(0, 16)));
    const at = Number(trailer.readBigUInt64LE(0));
    const aad = (kind: number, encoding: number, ordinal: number, slots: Buffer) => {
      const front = Buffer.from([1, 0, kind, encoding]);
      const numbers = Buffer.alloc(8);
      numbers.writeUInt32LE(ordinal, 0);
      numbers.writeUInt32LE(slots.length / 36, 4);
      return Buffer.concat([front, domain, id, numbers, slots]);
    };
    const place = Buffer.alloc(8);
    place.writeBigUInt64LE(BigInt(at));
    const bound = Buffer.concat([aad(255, 0, 0xffffffff, NONE), place]);
    const index = unseal(key, 0xffffffff, bound, pack.subarray(at, at + trailer.readUInt32LE(8)));
    const frames = index.readUInt32LE(0);
    let slotAt = 8 + frames * 20;
    for (let frame = 8; frame < 8 + frames * 20; frame += 20) {
      const count = index.readUInt16LE(frame + 18);
      const slots = index.subarray(slotAt, slotAt + count * 36);
      slotAt += count * 36;
      const offset = index.readUInt32LE(frame + 4);
      const [kind, encoding] = [index.readUInt8(frame + 16), index.readUInt8(frame + 17)];
      const ordinal = index.readUInt32LE(frame);
      const stored = pack.subarray(offset, offset + index.readUInt32LE(frame + 8));
      const opened = unseal(key, ordinal, aad(kind, encoding, ordinal, slots), stored);
      const plain = encoding === 1 ? zstdDecompressSync(opened) : opened;
      assert.equal(plain.length, index.readUInt32LE(frame + 12));
      let from = 0;
      for (let slot = 0; slot < slots.length; slot += 36) {
        const length = slots.readUInt32LE(slot + 32);
        this.#where.set(slots.toString("hex", slot, slot + 32), plain.subarray(from, from + length));
        from += length;
      }
    }
  }

  disk(tree: { readonly domain: string; readonly root: string; readonly sizeBytes: number }): Buffer {
    const secret = this.domain(tree.domain);
    const keys = { node: derive(secret, NONE, "node-id"), chunk: derive(secret, NONE, "chunk-id") };
    const chunks = Math.ceil(tree.sizeBytes / 65536);
    const image = Buffer.alloc(chunks * 65536);
    const get = (id: string, key: Buffer) => {
      const bytes = this.#where.get(id);
      assert.ok(bytes, id);
      assert.equal(createHmac("sha256", key).update(bytes).digest("hex"), id);
      return bytes;
    };
    const walk = (id: string, level: number, first: number): void => {
      const node = get(id, keys.node);
      assert.equal(node[0], level);
      let at = 8;
      for (let child = 0; child < 32; child++) {
        if (((node.readUInt32LE(4) >>> child) & 1) === 0) continue;
        const below = node.toString("hex", at, at + 32);
        at += 32;
        const start = first + child * 32 ** level;
        if (level > 0) walk(below, level - 1, start);
        else get(below, keys.chunk).copy(image, start * 65536);
      }
    };
    let level = 0;
    while (32 ** (level + 1) < chunks) level++;
    if (tree.root !== "zero") walk(tree.root, level, 0);
    return image.subarray(0, tree.sizeBytes);
  }

  journal(): { readonly kind: string; readonly payload: Record<string, string> }[] {
    const entries: { readonly kind: string; readonly payload: Record<string, string> }[] = [];
    let previous = "0".repeat(64);
    for (let number = 1; this.#objects.has(`journal/${String(number).padStart(12, "0")}`); number++) {
      const name = `journal/${String(number).padStart(12, "0")}`;
      const { clear, content } = this.sealed("journal", name);
      assert.equal(Number(clear.readBigUInt64LE(0)), number);
      assert.equal(clear.toString("hex", 8), previous);
      previous = createHash("sha256").update(this.object(name)).digest("hex");
      entries.push(JSON.parse(content.toString("utf8")));
    }
    return entries;
  }
}

test("the golden repository can be read by a program that knows only the written format", () => {
  const reader = new Reader(golden);
  const truth = JSON.parse(readFileSync(join(golden, "truth.json"), "utf8"));
  const commits = reader.journal().filter(({ kind }) => kind === "commit");
  assert.deepEqual(
    commits.map(({ payload }) => payload["manifest"]),
    truth.points.map((point: { manifest: string }) => point.manifest),
  );
  assert.equal(reader.header().platformDomain, truth.points[0].tree.domain);
  for (const point of truth.points) {
    const { content } = reader.sealed("manifest", `manifests/${point.manifest}`, "");
    const { disks } = JSON.parse(content.toString("utf8"));
    assert.deepEqual(disks[0].tree, point.tree);
    const image = reader.disk(disks[0].tree);
    const text = (chunk: number, length = 12) => image.toString("latin1", chunk * 65536, chunk * 65536 + length);
    assert.equal(text(0), "chunk 0 of t");
    assert.equal(text(1, 8), point.changed.includes(1) ? "changed " : "chunk 1 ");
    assert.equal(text(31), "chunk 31 of ");
    assert.equal(text(32), "chunk 32 of ");
    assert.ok(image.subarray(4 * 65536, 9 * 65536).every((byte) => byte === 0));
    assert.equal(image.length, 32 * 65536 + 5 * 65536 + 1536);
    assert.equal(image.toString("latin1", image.length - 8), "the end ");
  }
});
