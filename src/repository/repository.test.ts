import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { bytes, CHUNK_BYTES, MiB, StillpointError } from "../base/index.ts";
import { parseKey, readKeyFile, recoveryKit } from "../keys/index.ts";
import { type Extent, openRepository } from "./index.ts";
import type { Storage } from "./storage/storage.ts";
import { inFolder, inMemory, someImage, streamed, writePoint } from "./testing/harness.ts";

test("a full point and an increment read back byte for byte, also after reopening and without the cache", async () => {
  await inFolder(async (options) => {
    let repository = await openRepository(options);
    const image = someImage(9 * MiB + 512);
    const full = await writePoint(repository, { image });
    const next = Buffer.from(image);
    randomBytes(CHUNK_BYTES).copy(next, 5 * CHUNK_BYTES);
    next.fill(0, 9 * CHUNK_BYTES, 10 * CHUNK_BYTES);
    const ranges = [[4 * CHUNK_BYTES, 11 * CHUNK_BYTES]] as const;
    const increment = await writePoint(repository, { image: next, anchor: full.tree, ranges });
    assert.equal(increment.stats.changedChunks, 2);
    assert.equal(increment.stats.bytesRead, 7 * CHUNK_BYTES);
    for (let round = 0; round < 3; round++) {
      for (const [tree, truth] of [
        [full.tree, image],
        [increment.tree, next],
      ] as const) {
        assert.ok((await streamed(repository, tree)).equals(truth));
        const reader = await repository.openDisk(tree);
        assert.ok((await reader.read(bytes(3), bytes(truth.length - 3))).equals(truth.subarray(3)));
        await reader.close();
      }
      await repository.close();
      if (round === 1) await rm(options.cacheDir, { recursive: true });
      repository = await openRepository(options);
    }
    await repository.close();
  });
});

test("an unchanged point on a sparse 1 TiB disk writes no pack, and reading its extents costs nothing", async () => {
  await inFolder(async (options) => {
    const repository = await openRepository(options);
    const TiB = 1024 * 1024 * MiB;
    const first = await repository.beginPoint();
    const disk = await first.disk({ sizeBytes: bytes(TiB), anchor: null });
    const piece = randomBytes(MiB);
    await disk.zero(bytes(0), bytes(TiB / 2));
    await disk.write(bytes(TiB / 2), piece);
    await disk.zero(bytes(TiB / 2 + MiB), bytes(TiB / 2 - MiB));
    const { tree } = await disk.finish();
    await first.sync();
    await first.close();
    const before = await readdir(join(options.path, "packs"), { recursive: true });
    const second = await repository.beginPoint();
    const same = await second.disk({ sizeBytes: bytes(TiB), anchor: tree });
    const done = await same.finish();
    await second.sync();
    await second.close();
    assert.deepEqual(done.tree, tree);
    assert.deepEqual(done.stats, { bytesRead: 0, changedChunks: 0, newStoredBytes: 0 });
    assert.deepEqual(await readdir(join(options.path, "packs"), { recursive: true }), before);
    const reader = await repository.openDisk(tree);
    const extents: Extent[] = [];
    for await (const extent of reader.extents()) extents.push(extent);
    assert.deepEqual(extents, [
      { offset: 0, length: TiB / 2, zero: true },
      { offset: TiB / 2, length: MiB, zero: false },
      { offset: TiB / 2 + MiB, length: TiB / 2 - MiB, zero: true },
    ]);
    assert.ok(
      (await reader.read(bytes(TiB / 2 - 100), bytes(200))).equals(
        Buffer.concat([Buffer.alloc(100), piece.subarray(0, 100)]),
      ),
    );
    await reader.close();
    await repository.close();
  });
});

test("zeroing all of a disk gives the zero tree; growing a disk keeps its chunks", async () => {
  await inFolder(async (options) => {
    const repository = await openRepository(options);
    const image = someImage(5 * MiB + 1024);
    const { tree } = await writePoint(repository, { image });
    const writer = await repository.beginPoint();
    const emptied = await writer.disk({ sizeBytes: tree.sizeBytes, anchor: tree });
    await emptied.zero(bytes(0), tree.sizeBytes);
    const zero = await emptied.finish();
    assert.equal(zero.tree.root, "zero");
    assert.equal(zero.stats.changedChunks, countNonZero(image));
    const grownSize = bytes(300 * MiB);
    const grown = await writer.disk({ sizeBytes: grownSize, anchor: tree });
    const tail = randomBytes(CHUNK_BYTES);
    await grown.write(bytes(grownSize - CHUNK_BYTES), tail);
    const larger = await grown.finish();
    await writer.sync();
    await writer.close();
    const truth = Buffer.alloc(grownSize);
    image.copy(truth);
    tail.copy(truth, grownSize - CHUNK_BYTES);
    assert.ok((await streamed(repository, larger.tree)).equals(truth));
    await assert.rejects(
      writePoint(repository, { image: image.subarray(0, MiB), anchor: tree }),
      /smaller than its anchor/,
    );
    await repository.close();
  });
});

function countNonZero(image: Buffer): number {
  let count = 0;
  for (let at = 0; at < image.length; at += CHUNK_BYTES)
    if (image.subarray(at, at + CHUNK_BYTES).some((byte) => byte !== 0)) count++;
  return count;
}

test("equal chunks are stored once, within a point and across points", async () => {
  await inFolder(async (options) => {
    const repository = await openRepository(options);
    const image = Buffer.concat(Array(64).fill(randomBytes(CHUNK_BYTES)));
    const first = await writePoint(repository, { image });
    assert.ok(first.stats.newStoredBytes < 1.2 * CHUNK_BYTES + 4096, String(first.stats.newStoredBytes));
    const again = await writePoint(repository, { image });
    assert.deepEqual(again.tree, first.tree);
    assert.equal(again.stats.newStoredBytes, 0);
    await repository.close();
  });
});

test("memory shared with the caller is written without a copy", async () => {
  await inFolder(async (options) => {
    const repository = await openRepository(options);
    const shared = Buffer.from(new SharedArrayBuffer(3 * MiB));
    randomBytes(shared.length).copy(shared);
    const { tree } = await writePoint(repository, { image: shared });
    assert.ok((await streamed(repository, tree)).equals(shared));
    await repository.close();
  });
});

test("the sample is told from what the anchor holds", async () => {
  await inFolder(async (options) => {
    const repository = await openRepository(options);
    const image = someImage(3 * MiB + 512);
    const { tree } = await writePoint(repository, { image });
    const writer = await repository.beginPoint();
    const disk = await writer.disk({ sizeBytes: tree.sizeBytes, anchor: tree });
    assert.equal(await disk.matchesAnchor(bytes(CHUNK_BYTES), image.subarray(CHUNK_BYTES, 2 * MiB)), true);
    assert.equal(await disk.matchesAnchor(bytes(3 * MiB), image.subarray(3 * MiB)), true);
    const other = Buffer.from(image.subarray(0, MiB));
    other[MiB - 1] = (other[MiB - 1] as number) ^ 1;
    assert.equal(await disk.matchesAnchor(bytes(0), other), false);
    await disk.finish();
    await writer.close();
    await repository.close();
  });
});

test("a missing, wrong or damaged key is named, and nothing is written", async () => {
  await inFolder(async (options, folder) => {
    const repository = await openRepository(options);
    await repository.close();
    const before = await snapshot(folder);
    await rename(options.keyFile, join(folder, "away"));
    await assert.rejects(openRepository(options), { code: "KeyMismatch", message: /is missing/ });
    assert.equal(await readKeyFile(options.keyFile), null, "no second key was made");
    const other = { ...options, path: join(folder, "other"), keyFile: join(folder, "other-key") };
    await (await openRepository(other)).close();
    await rename(other.keyFile, options.keyFile);
    await assert.rejects(openRepository(options), { code: "KeyMismatch", message: /is of repository/ });
    const text = await readFile(join(folder, "away"), "utf8");
    await writeFile(
      options.keyFile,
      text.replace(/\nkey: (.)/, (_, digit) => `\nkey: ${digit === "0" ? "1" : "0"}`),
    );
    await assert.rejects(openRepository(options), { code: "KeyMismatch", message: /damaged or mistyped/ });
    await rename(join(folder, "away"), options.keyFile);
    await rm(other.path, { recursive: true });
    assert.deepEqual(await snapshot(folder), before);
    await (await openRepository(options)).close();
  });
});

/** Names, sizes and modification times below a folder: unchanged means that nothing was written. */
async function snapshot(folder: string): Promise<unknown[]> {
  const names = (await readdir(folder, { recursive: true })).filter((name) => !name.includes("cache")).sort();
  return Promise.all(
    names.map(async (name) => {
      const facts = await stat(join(folder, name));
      return [name, facts.isFile() ? facts.size : 0, facts.isFile() ? facts.mtimeMs : 0];
    }),
  );
}

test("a key without its repository does not make a new one; a folder with other things neither", async () => {
  await inFolder(async (options) => {
    await (await openRepository(options)).close();
    await rename(options.path, `${options.path}-unmounted`);
    await assert.rejects(openRepository(options), { code: "RepositoryUnavailable", message: /not mounted/ });
    await mkdir(options.path);
    await assert.rejects(openRepository(options), { code: "RepositoryUnavailable", message: /not mounted/ });
    await writeFile(join(options.path, "photo"), "holiday");
    await assert.rejects(openRepository(options), { code: "RepositoryUnavailable", message: /neither/ });
  });
});

test("a creation that was cut off is begun anew with its key", async () => {
  await inFolder(async (options) => {
    await (await openRepository(options)).close();
    await rename(options.keyFile, `${options.keyFile}.new`);
    const key = await readKeyFile(`${options.keyFile}.new`);
    for (const name of ["repository", "repository.copy", "packs", "epochs"])
      await rm(join(options.path, name), { recursive: true, force: true });
    const repository = await openRepository(options);
    assert.equal(repository.repositoryId, key?.repositoryId);
    assert.deepEqual(await readKeyFile(options.keyFile), key);
    assert.equal((await stat(options.keyFile)).mode & 0o777, 0o600);
    await repository.close();
  });
});

test("a second service is refused while the first one runs", async () => {
  await inFolder(async (options) => {
    const repository = await openRepository(options);
    await assert.rejects(openRepository(options), { code: "RepositoryUnavailable", message: /in use/ });
    await repository.close();
    await (await openRepository(options)).close();
  });
});

test("one copy of the header, and the journal's copy of the domain key, are enough", async () => {
  await inFolder(async (options) => {
    let repository = await openRepository(options);
    const image = someImage(MiB);
    const { tree } = await writePoint(repository, { image });
    await repository.close();
    const header = await readFile(join(options.path, "repository"));
    header[8] = (header[8] as number) ^ 4;
    await writeFile(join(options.path, "repository"), header);
    await rm(join(options.path, "domains"), { recursive: true });
    repository = await openRepository(options);
    assert.ok((await streamed(repository, tree)).equals(image));
    await repository.close();
  });
});

test("a recovery kit typed in by hand opens the repository", async () => {
  await inFolder(async (options) => {
    await (await openRepository(options)).close();
    const key = await readKeyFile(options.keyFile);
    assert.ok(key);
    const kit = recoveryKit(key, { region: "local", printedAt: new Date(0) });
    const typed = kit.toUpperCase().replaceAll("REPOSITORY: ", "repository :  ");
    assert.deepEqual(parseKey(typed, "kit"), key);
    await writeFile(options.keyFile, kit);
    await (await openRepository(options)).close();
  });
});

test("the journal is a chain; a number taken by others fences", async () => {
  await inFolder(async (options) => {
    let repository = await openRepository(options);
    const head = await repository.journalHead();
    assert.equal(head.number, 2);
    const mine = repository.sealEntry(head, "commit", { n: 3 });
    const other = repository.sealEntry(head, "commit", { n: "other" });
    await repository.publishEntry(mine);
    await repository.publishEntry(mine);
    await assert.rejects(repository.publishEntry(other), { code: "RepositoryFenced" });
    await repository.publishEntry(repository.sealEntry(mine, "delete", { n: 4 }));
    await repository.close();
    repository = await openRepository(options);
    const kinds: string[] = [];
    for await (const entry of repository.readJournal()) kinds.push(entry.kind);
    assert.deepEqual(kinds, ["format", "domain-key", "commit", "delete"]);
    const payloads: unknown[] = [];
    for await (const entry of repository.readJournal(3)) payloads.push(entry.payload);
    assert.deepEqual(payloads, [{ n: 3 }, { n: 4 }]);
    await rename(join(options.path, "journal/000000000004"), join(options.path, "journal/000000000005"));
    await assert.rejects(repository.journalHead(), { code: "RepositoryDamaged", target: "journal/000000000004" });
    await rename(join(options.path, "journal/000000000005"), join(options.path, "journal/000000000003"));
    await assert.rejects(repository.journalHead(), { code: "RepositoryDamaged", target: "journal/000000000003" });
    await repository.close();
  });
});

test("several points are written at the same time, each with several disks", async () => {
  await inFolder(async (options) => {
    const repository = await openRepository(options);
    const images = Array.from({ length: 6 }, () => someImage(3 * MiB));
    const trees = await Promise.all(
      [0, 2, 4].map(async (first) => {
        const writer = await repository.beginPoint();
        const done = await Promise.all(
          [first, first + 1].map(async (n) => {
            const image = images[n] as Buffer;
            const disk = await writer.disk({ sizeBytes: bytes(image.length), anchor: null });
            const pieces = Array.from({ length: 48 }, (_, chunk) => chunk * CHUNK_BYTES).reverse();
            await Promise.all(pieces.map((at) => disk.write(bytes(at), image.subarray(at, at + CHUNK_BYTES))));
            return (await disk.finish()).tree;
          }),
        );
        await writer.sync();
        await writer.close();
        return done;
      }),
    );
    for (const [n, tree] of trees.flat().entries())
      assert.ok((await streamed(repository, tree)).equals(images[n] as Buffer), `disk ${n}`);
    await repository.close();
  });
});

test("a point that is given up in the middle leaves no file behind, and the next one is right", async () => {
  await inFolder(async (options) => {
    const repository = await openRepository(options);
    const image = someImage(8 * MiB);
    const writer = await repository.beginPoint();
    const disk = await writer.disk({ sizeBytes: bytes(image.length), anchor: null });
    const writing = disk.write(bytes(0), image);
    await writer.close();
    await assert.rejects(writing);
    await assert.rejects(disk.finish());
    assert.deepEqual(await readdir(join(options.path, "tmp")), []);
    const { tree } = await writePoint(repository, { image });
    assert.ok((await streamed(repository, tree)).equals(image));
    await repository.close();
  });
});

test("a full disk fails the point with a remedy, every step after it too, and no other point", async () => {
  await inMemory(async ({ open, storage }) => {
    let room = 0;
    const full = new StillpointError("InsufficientSpace", "The repository is full.");
    const small: Storage = {
      ...storage,
      begin: async (name) => {
        const writer = await storage.begin(name);
        return {
          ...writer,
          append: async (parts) => {
            room -= parts.reduce((sum, part) => sum + part.length, 0);
            if (room < 0) throw full;
            return writer.append(parts);
          },
        };
      },
    };
    const repository = await open(small);
    const image = randomBytes(6 * MiB);
    for (const space of [0, 1000, 3 * MiB, 6 * MiB]) {
      room = space;
      const writer = await repository.beginPoint();
      const disk = await writer.disk({ sizeBytes: bytes(image.length), anchor: null });
      await disk.write(bytes(0), image).catch((error) => assert.equal(error, full));
      await disk.finish().catch((error) => assert.equal(error, full));
      for (let twice = 0; twice < 2; twice++) await assert.rejects(writer.sync(), full);
      await assert.rejects(writer.writeManifest({} as never), full);
      await writer.close();
    }
    room = 100 * MiB;
    const { tree } = await writePoint(repository, { image });
    assert.ok((await streamed(repository, tree)).equals(image));
    await repository.close();
  });
});

test("a stream ends when it is no longer wanted", async () => {
  await inFolder(async (options) => {
    const repository = await openRepository(options);
    const { tree } = await writePoint(repository, { image: randomBytes(20 * MiB) });
    const reader = await repository.openDisk(tree);
    const abort = new AbortController();
    let got = 0;
    const reading = async () => {
      for await (const { data } of reader.stream(abort.signal)) {
        got += data.length;
        if (got >= 3 * MiB) abort.abort(new Error("enough"));
      }
    };
    await assert.rejects(reading(), /enough/);
    assert.equal(got, 3 * MiB);
    for await (const { data } of reader.stream()) {
      assert.equal(data.length, MiB);
      break;
    }
    await reader.close();
    await repository.close();
  });
});
