import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { bytes, CHUNK_BYTES, MiB } from "../../base/index.ts";
import { damaged } from "../format/object.ts";
import { decodeTrailer, PACK_FRONT_BYTES, TRAILER_BYTES } from "../format/pack.ts";
import type { MemoryStorage } from "../storage/memory.ts";
import type { Storage } from "../storage/storage.ts";
import { inMemory, publish, someImage, streamed, writePoint } from "../testing/harness.ts";

const names = (storage: MemoryStorage, folder: string) =>
  [...storage.objects.keys()].filter((name) => name.startsWith(folder));

function flip(storage: MemoryStorage, name: string, at: number): void {
  const object = storage.objects.get(name) as Buffer;
  const place = at < 0 ? object.length + at : at;
  object[place] = (object[place] as number) ^ 0x10;
}

test("a sound repository verifies, and everything in it was read", async () => {
  await inMemory(async ({ open, storage }) => {
    const repository = await open();
    const { manifest, pointId } = await writePoint(repository, { image: someImage(5 * MiB) });
    const seen: number[] = [];
    const report = await repository.verify({ points: [{ pointId, manifest }] }, (done, total) =>
      seen.push(done, total),
    );
    assert.deepEqual(report.damage, []);
    assert.equal(report.objectsRead, storage.objects.size);
    assert.equal(seen.at(-2), seen.at(-1));
    assert.ok(report.bytesRead > 2 * MiB);
    await repository.close();
  });
});

test("one flipped bit in any object is found, wherever it is", async () => {
  await inMemory(async ({ open, storage, dropCache }) => {
    let repository = await open();
    const { manifest, pointId } = await writePoint(repository, { image: someImage(MiB) });
    await publish(repository, "commit", { manifest, point: "p", pointId, collectionId: "/c" });
    await repository.close();
    const before = new Map([...storage.objects].map(([name, object]) => [name, Buffer.from(object)] as const));
    for (const [index, [name, object]] of [...before].entries()) {
      const half = Math.floor(object.length / 2);
      const places = [3, 8, 10, half, 20, object.length - 20, 40, 70, object.length - 1];
      for (const at of places.filter((_, place) => place % 3 === index % 3)) {
        await dropCache();
        storage.objects.clear();
        for (const [other, whole] of before) storage.objects.set(other, Buffer.from(whole));
        repository = await open();
        const where = name.startsWith("epochs/") ? (names(storage, "epochs/")[0] as string) : name;
        flip(storage, where, at);
        const report = await repository.verify({ points: [{ pointId, manifest }] });
        await repository.close();
        if (isUnused(where, at, object)) continue;
        assert.ok(
          report.damage.some((damage) => damage.object.startsWith(where)),
          `byte ${at} of ${where}: ${JSON.stringify(report.damage)}`,
        );
      }
    }
  });
});

/** Bytes of a pack that say nothing: the zeroes of its header and trailer. */
function isUnused(name: string, at: number, object: Buffer): boolean {
  const trailer = object.length - TRAILER_BYTES;
  return name.startsWith("packs/") && ((at > 48 && at < 64) || (at >= trailer + 20 && at < trailer + 24));
}

test("all damage is listed with the points and disks it breaks, and writing the bytes again heals them", async () => {
  await inMemory(async ({ open, storage, dropCache }) => {
    let repository = await open();
    const image = randomBytes(4 * MiB);
    const first = await writePoint(repository, { image, name: "first" });
    const changed = Buffer.from(image);
    randomBytes(CHUNK_BYTES).copy(changed, 0);
    const second = await writePoint(repository, {
      image: changed,
      anchor: first.tree,
      ranges: [[0, CHUNK_BYTES]],
      name: "second",
    });
    const alone = await writePoint(repository, { image: randomBytes(MiB), name: "alone" });
    await repository.close();
    await dropCache();
    repository = await open();
    const points = [first, second, alone].map(({ pointId, manifest }) => ({ pointId, manifest }));
    // The first frame of the first pack: chunks 0-3 of the first point; chunk 0 is in no other point.
    const [pack] = names(storage, "packs/");
    flip(storage, pack as string, PACK_FRONT_BYTES + 1000);
    flip(storage, pack as string, PACK_FRONT_BYTES + 3 * MiB);
    const gone = names(storage, "packs/")[2] as string;
    storage.objects.delete(gone);
    const { damage } = await repository.verify({ points });
    const order = [`${pack}#0`, `${pack}#11`, gone, `node ${alone.tree.root}`];
    assert.deepEqual(
      damage
        .map(({ object, breaks }) => ({ object, breaks: breaks.map((b) => `${b.pointId} ${b.diskUid}`).sort() }))
        .sort((a, b) => order.indexOf(a.object) - order.indexOf(b.object)),
      [
        { object: `${pack}#0`, breaks: ["/points/first disk-0", "/points/second disk-0"] },
        { object: `${pack}#11`, breaks: ["/points/first disk-0", "/points/second disk-0"] },
        { object: gone, breaks: [] },
        { object: `node ${alone.tree.root}`, breaks: ["/points/alone disk-0"] },
      ],
    );
    await assert.rejects(streamed(repository, first.tree), { code: "RepositoryDamaged" });

    // The writer is told which ranges to read again; that is enough for both points, also after a restart.
    await repository.close();
    repository = await open();
    const writer = await repository.beginPoint();
    const disk = await writer.disk({ sizeBytes: first.tree.sizeBytes, anchor: second.tree });
    const ranges = await disk.damagedRanges();
    assert.deepEqual(ranges, [
      { offset: CHUNK_BYTES, length: 3 * CHUNK_BYTES },
      { offset: 44 * CHUNK_BYTES, length: 4 * CHUNK_BYTES },
    ]);
    assert.equal(await disk.matchesAnchor(bytes(CHUNK_BYTES), changed.subarray(CHUNK_BYTES, 2 * CHUNK_BYTES)), false);
    for (const { offset, length } of ranges) await disk.write(offset, changed.subarray(offset, offset + length));
    const healed = await disk.finish();
    await writer.sync();
    await writer.close();
    assert.deepEqual(healed.tree, second.tree, "the same tree: nothing has changed but where its chunks are");
    assert.equal(healed.stats.changedChunks, 0);
    assert.ok((await streamed(repository, second.tree)).equals(changed));
    const after = await repository.verify({ points });
    assert.deepEqual(after.damage.find(({ object }) => object === `${pack}#11`)?.breaks, []);
    assert.deepEqual(after.damage.find(({ object }) => object === `${pack}#0`)?.breaks, [
      { pointId: "/points/first", diskUid: "disk-0" },
    ]);
    await repository.close();
  });
});

test("a damaged tree node: its whole range must be written anew, and then the disk is whole", async () => {
  await inMemory(async ({ open, storage, dropCache }) => {
    let repository = await open();
    const image = randomBytes(5 * MiB);
    const { tree } = await writePoint(repository, { image });
    await repository.close();
    await dropCache();
    // The last frame is that of the nodes: three leaves and the root. Damage it; the root is needed to begin at all.
    const [pack] = names(storage, "packs/");
    const object = storage.objects.get(pack as string) as Buffer;
    const { offset } = decodeTrailer(object.subarray(-TRAILER_BYTES), object.length, "pack");
    flip(storage, pack as string, offset - 100);
    repository = await open();
    const writer = await repository.beginPoint();
    await assert.rejects(writer.disk({ sizeBytes: tree.sizeBytes, anchor: tree }), { code: "RepositoryDamaged" });
    await writer.close();
    const anew = await writePoint(repository, { image });
    assert.deepEqual(anew.tree, tree);
    assert.ok(anew.stats.newStoredBytes < 16 * 1024, "only nodes were written again");
    assert.ok((await streamed(repository, tree)).equals(image));
    await repository.close();
  });
});

test("a manifest that cannot be read breaks every disk of its point", async () => {
  await inMemory(async ({ open, storage }) => {
    const repository = await open();
    const { manifest, pointId } = await writePoint(repository, { image: someImage(MiB) });
    storage.objects.delete(`manifests/${manifest}`);
    const { damage } = await repository.verify({ points: [{ pointId, manifest }] });
    assert.deepEqual(damage, [
      { object: `manifests/${manifest}`, problem: damage[0]?.problem, breaks: [{ pointId, diskUid: "*" }] },
    ]);
    await repository.close();
  });
});

test("a bad minute of the disk costs nothing: what was noted as damaged is read again when it can be", async () => {
  await inMemory(async ({ open, storage, dropCache }) => {
    let repository = await open();
    const image = randomBytes(2 * MiB);
    const { tree } = await writePoint(repository, { image });
    await repository.close();
    await dropCache();
    let bad = false;
    const flaky: Storage = {
      ...storage,
      readRange: async (name, offset, length) => {
        if (bad) throw damaged(name, "it cannot be read from the disk (EIO)");
        return storage.readRange(name, offset, length);
      },
    };
    repository = await open(flaky);
    const reader = await repository.openDisk(tree);
    bad = true;
    await assert.rejects(reader.read(bytes(0), bytes(MiB)), { code: "RepositoryDamaged" });
    bad = false;
    assert.ok((await reader.read(bytes(0), bytes(MiB))).equals(image.subarray(0, MiB)));
    await reader.close();
    // A writer does not trust it all the same: the bytes are stored once more.
    const again = await writePoint(repository, { image });
    assert.ok(again.stats.newStoredBytes > 512 * 1024);
    await repository.close();
  });
});
