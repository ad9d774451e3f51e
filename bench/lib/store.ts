/** A repository of its own for a measurement, and copying files into and out of it the way captures and restores do. */
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { type Bytes, bytes, CHUNK_BYTES, MiB, type PointUid, systemClock, systemRandom } from "../../src/base/index.ts";
import { type ManifestHash, openRepository, type Repository, type TreeRef } from "../../src/repository/index.ts";

export interface Store {
  readonly repository: Repository;
  readonly path: string;
}

export async function openStore(dir: string): Promise<Store> {
  const path = join(dir, "repository");
  const repository = await openRepository({
    path,
    keyFile: join(dir, "repository.key"),
    region: "bench",
    cacheDir: join(dir, "cache"),
    workers: (await import("node:os")).availableParallelism(),
    clock: systemClock,
    random: systemRandom,
  });
  return { repository, path };
}

export interface StoredPoint {
  readonly tree: TreeRef;
  readonly manifest: ManifestHash;
  readonly newStoredBytes: number;
}

/** Ranges to read: the whole file, or the given chunks. */
type Ranges = Iterable<readonly [offset: number, length: number]>;

/** Stores a file as one disk of one point, durable when it returns. */
export async function storeFile(
  store: Store,
  path: string,
  name: string,
  anchor: TreeRef | null = null,
  chunks?: readonly number[],
): Promise<StoredPoint> {
  const file = await open(path, "r");
  const writer = await store.repository.beginPoint();
  try {
    const sizeBytes = bytes((await file.stat()).size);
    const disk = await writer.disk({ sizeBytes, anchor });
    const ranges = chunks ? chunkRanges(chunks, sizeBytes) : wholeFile(sizeBytes);
    await lanes(file, ranges, (offset, data) => disk.write(offset, data));
    const { tree, stats } = await disk.finish();
    await writer.sync();
    const manifest = await writer.writeManifest({
      point: systemRandom.uuid() as PointUid,
      pointId: name,
      collectionId: "bench",
      createdAt: systemClock.now().toISOString(),
      disks: [],
      nvram: tree,
      resource: null,
      record: null,
      origin: null,
      lockedUntil: null,
      expiresAt: null,
      recordSchema: 1,
    });
    return { tree, manifest, newStoredBytes: stats.newStoredBytes };
  } finally {
    await writer.close();
    await file.close();
  }
}

const DEPTH = 8;

async function lanes(
  file: FileHandle,
  ranges: Ranges,
  write: (offset: Bytes, data: Buffer) => Promise<void>,
): Promise<void> {
  const next = ranges[Symbol.iterator]();
  const lane = async () => {
    const buffer = Buffer.allocUnsafeSlow(MiB);
    for (let step = next.next(); !step.done; step = next.next()) {
      const [offset, length] = step.value;
      await file.read(buffer, 0, length, offset);
      await write(bytes(offset), buffer.subarray(0, length));
    }
  };
  await Promise.all(Array.from({ length: DEPTH }, lane));
}

function* wholeFile(sizeBytes: number): Generator<readonly [number, number]> {
  for (let at = 0; at < sizeBytes; at += MiB) yield [at, Math.min(MiB, sizeBytes - at)];
}

function* chunkRanges(chunks: readonly number[], sizeBytes: number): Generator<readonly [number, number]> {
  for (const chunk of chunks) {
    const at = chunk * CHUNK_BYTES;
    yield [at, Math.min(CHUNK_BYTES, sizeBytes - at)];
  }
}
