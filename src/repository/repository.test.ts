import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { bytes, CHUNK_BYTES, systemClock, systemRandom } from "../base/index.ts";
import { type DiskReader, openRepository, type Repository, type RepositoryOptions } from "./index.ts";

async function inFolder(work: (options: RepositoryOptions) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "stillpoint-repository-"));
  try {
    await work({
      path: join(folder, "repository"),
      keyFile: join(folder, "key"),
      region: "local",
      cacheDir: join(folder, "cache"),
      workers: 2,
      clock: systemClock,
      random: systemRandom,
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** What `stream` and `extents` say, as one image. */
async function streamed(reader: DiskReader): Promise<Buffer> {
  const image = Buffer.alloc(reader.sizeBytes);
  for await (const { offset, data } of reader.stream()) image.set(data, offset);
  return image;
}

/** Random and compressible chunks, zeroes and repeats. */
function someImage(sizeBytes: number): Buffer {
  const image = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes; at += CHUNK_BYTES) {
    const kind = Math.floor((at / CHUNK_BYTES) % 7);
    const length = Math.min(CHUNK_BYTES, sizeBytes - at);
    if (kind < 3) randomBytes(length).copy(image, at);
    else if (kind < 5) image.fill(`chunk ${at} `, at, at + length);
    else if (kind === 5) image.fill("the same", at, at + length);
  }
  return image;
}

async function point(
  repository: Repository,
  image: Buffer,
  anchor: Parameters<Awaited<ReturnType<Repository["beginPoint"]>>["disk"]>[0]["anchor"],
  ranges: readonly [number, number][],
) {
  const writer = await repository.beginPoint();
  const disk = await writer.disk({ sizeBytes: bytes(image.length), anchor });
  await Promise.all(ranges.map(([from, to]) => disk.write(bytes(from), image.subarray(from, to))));
  const done = await disk.finish();
  await writer.sync();
  await writer.close();
  return done;
}

test("a full point and an increment read back byte for byte, also after reopening", async () => {
  await inFolder(async (options) => {
    let repository = await openRepository(options);
    const image = someImage(9 * 1024 * 1024 + 512);
    const full = await point(repository, image, null, [[0, image.length]]);
    const next = Buffer.from(image);
    randomBytes(CHUNK_BYTES).copy(next, 5 * CHUNK_BYTES);
    next.fill(0, 9 * CHUNK_BYTES, 10 * CHUNK_BYTES);
    const increment = await point(repository, next, full.tree, [[4 * CHUNK_BYTES, 11 * CHUNK_BYTES]]);
    assert.equal(increment.stats.changedChunks, 2);
    for (let round = 0; round < 2; round++) {
      for (const [tree, truth] of [
        [full.tree, image],
        [increment.tree, next],
      ] as const) {
        const reader = await repository.openDisk(tree);
        assert.ok((await streamed(reader)).equals(truth));
        assert.ok((await reader.read(bytes(3), bytes(truth.length - 3))).equals(truth.subarray(3)));
        await reader.close();
      }
      await repository.close();
      if (round === 0) await rm(options.cacheDir, { recursive: true });
      repository = await openRepository(options);
    }
    assert.equal((await repository.journalHead()).number, 2);
    await repository.close();
  });
});
