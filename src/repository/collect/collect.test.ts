import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { bytes, CHUNK_BYTES, MiB } from "../../base/index.ts";
import { decodeTrailer, PACK_FRONT_BYTES, TRAILER_BYTES } from "../format/pack.ts";
import type { ManifestHash, TreeRef } from "../index.ts";
import { inMemory, publish, someImage, streamed, writePoint } from "../testing/harness.ts";

const roots = (manifests: readonly ManifestHash[] = [], trees: readonly TreeRef[] = []) => ({ manifests, trees });

function packsOf(storage: { readonly objects: Map<string, Buffer> }): string[] {
  return [...storage.objects.keys()].filter((name) => name.startsWith("packs/"));
}

test("a deleted point's packs are condemned by one collection and swept by the next", async () => {
  await inMemory(async ({ open, storage }) => {
    const repository = await open();
    const kept = await writePoint(repository, { image: someImage(2 * MiB) });
    const keptPacks = packsOf(storage);
    const gone = await writePoint(repository, { image: randomBytes(2 * MiB) });
    await repository.collect(roots([kept.manifest, gone.manifest])); // ends the pins of both writers
    assert.deepEqual(await repository.collect(roots([kept.manifest])), {
      packsKept: 1,
      packsCondemned: 1,
      packsSwept: 0,
      freedBytes: 0,
    });
    assert.ok((await streamed(repository, gone.tree)).length > 0, "a condemned pack can still be read");
    const swept = await repository.collect(roots([kept.manifest]));
    assert.equal(swept.packsSwept, 1);
    assert.ok(swept.freedBytes > 2 * MiB);
    assert.deepEqual(packsOf(storage), keptPacks);
    assert.deepEqual(
      [...storage.objects.keys()].filter((name) => name.startsWith("manifests/")),
      [`manifests/${kept.manifest}`],
    );
    await assert.rejects(streamed(repository, gone.tree), { code: "RepositoryDamaged" });
    await repository.close();
  });
});

test("PSA-2025-00019-1: a point made from a point that is deleted while the collection runs keeps its chunks", async () => {
  // Every interleaving of the four steps: begin S1 on S0, write S1, delete S0 (the collection no longer sees it), commit.
  for (const collectAt of ["after-begin", "while-writing", "before-commit", "after-close", "twice"] as const) {
    await inMemory(async ({ open, storage, dropCache }) => {
      let repository = await open();
      const image = someImage(3 * MiB);
      const s0 = await writePoint(repository, { image });
      await repository.collect(roots([s0.manifest], [s0.tree])); // S0's own pins are over
      const writer = await repository.beginPoint();
      const disk = await writer.disk({ sizeBytes: bytes(image.length), anchor: s0.tree });
      // The collection's caller has listed what is live: S0 is deleted, S1 not there yet.
      const collect = () => repository.collect(roots());
      const running: Promise<unknown>[] = [];
      if (collectAt === "after-begin") await collect();
      const next = Buffer.from(image);
      randomBytes(CHUNK_BYTES).copy(next, 0);
      image.copy(next, MiB, 0, MiB); // chunks of S0 again, elsewhere
      const writing = disk.write(bytes(0), next.subarray(0, 2 * MiB));
      if (collectAt === "while-writing") running.push(collect());
      await writing;
      const { tree } = await disk.finish();
      if (collectAt === "before-commit") running.push(collect());
      await writer.sync();
      if (collectAt === "twice") await Promise.all([collect(), collect()]);
      await writer.close();
      if (collectAt === "after-close") running.push(collect());
      await Promise.all(running);
      // From here on the caller knows S1.
      for (let round = 0; round < 3; round++) {
        await repository.collect(roots([], [tree]));
        assert.ok((await streamed(repository, tree)).equals(next), `${collectAt}, round ${round}`);
      }
      await repository.close();
      await dropCache();
      repository = await open();
      assert.ok((await streamed(repository, tree)).equals(next), collectAt);
      assert.ok(packsOf(storage).length > 0);
      await repository.close();
    });
  }
});

test("chunks found in a point without an anchor are pinned by the writer that found them", async () => {
  await inMemory(async ({ open }) => {
    const repository = await open();
    const image = randomBytes(2 * MiB);
    const old = await writePoint(repository, { image });
    await repository.collect(roots([old.manifest]));
    const writer = await repository.beginPoint();
    const disk = await writer.disk({ sizeBytes: bytes(image.length), anchor: null });
    await disk.write(bytes(0), image); // all known
    const { tree, stats } = await disk.finish();
    assert.equal(stats.newStoredBytes, 0);
    for (let round = 0; round < 3; round++) await repository.collect(roots());
    await writer.sync();
    await writer.close();
    await repository.collect(roots([], [tree]));
    assert.ok((await streamed(repository, tree)).equals(image));
    await repository.close();
  });
});

test("condemned chunks are unknown to writers: they are written again, and the old pack goes", async () => {
  await inMemory(async ({ open, storage }) => {
    const repository = await open();
    const image = randomBytes(MiB);
    await writePoint(repository, { image });
    const [old] = packsOf(storage);
    await repository.collect(roots());
    await repository.collect(roots());
    const again = await writePoint(repository, { image });
    assert.ok(again.stats.newStoredBytes > MiB);
    for (let round = 0; round < 3; round++) await repository.collect(roots([again.manifest]));
    assert.ok(!packsOf(storage).includes(old as string));
    assert.ok((await streamed(repository, again.tree)).equals(image));
    await repository.close();
  });
});

test("what an earlier life of the service condemned is marked again before it is swept", async () => {
  await inMemory(async ({ open, storage }) => {
    let repository = await open();
    const image = randomBytes(MiB);
    const point = await writePoint(repository, { image });
    const other = await writePoint(repository, { image: randomBytes(MiB) });
    await repository.collect(roots([point.manifest, other.manifest]));
    await repository.collect(roots()); // a caller that forgot both
    await repository.close();
    repository = await open();
    const report = await repository.collect(roots([point.manifest]));
    assert.equal(report.packsSwept, 1);
    assert.equal(packsOf(storage).length, 1);
    assert.ok((await streamed(repository, point.tree)).equals(image));
    await repository.close();
  });
});

test("a committed point is kept until its deletion is in the journal, whatever the caller names", async () => {
  await inMemory(async ({ open }) => {
    const repository = await open();
    const image = randomBytes(MiB);
    const point = await writePoint(repository, { image });
    const { manifest, pointId } = point;
    await publish(repository, "commit", { manifest, point: "p1", pointId, collectionId: "/Collections/One" });
    for (let round = 0; round < 3; round++) assert.equal((await repository.collect(roots())).packsSwept, 0);
    assert.ok((await streamed(repository, point.tree)).equals(image));
    await publish(repository, "delete", { point: "p1", pointId });
    let swept = 0;
    for (let round = 0; round < 2; round++) swept += (await repository.collect(roots())).packsSwept;
    assert.equal(swept, 1);
    await repository.close();
  });
});

test("a live node that cannot be read stops the collection before it condemns anything", async () => {
  await inMemory(async ({ open, storage, dropCache }) => {
    let repository = await open();
    const point = await writePoint(repository, { image: randomBytes(MiB) });
    const other = await writePoint(repository, { image: randomBytes(MiB) });
    await repository.close();
    await dropCache();
    const [name] = packsOf(storage);
    const pack = storage.objects.get(name as string) as Buffer;
    pack.fill(0, PACK_FRONT_BYTES, decodeTrailer(pack.subarray(-TRAILER_BYTES), pack.length, "pack").offset);
    repository = await open();
    await assert.rejects(repository.collect(roots([point.manifest])), { code: "RepositoryDamaged" });
    for (let round = 0; round < 2; round++)
      assert.equal((await repository.collect(roots([other.manifest]))).packsCondemned, round === 0 ? 1 : 0);
    await repository.close();
  });
});
