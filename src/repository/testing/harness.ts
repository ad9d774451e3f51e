/** What the tests of the repository share: repositories in a folder or in memory, points with their truth beside them. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  bytes,
  CHUNK_BYTES,
  type DiskUid,
  type PointUid,
  type Random,
  systemClock,
  systemRandom,
} from "../../base/index.ts";
import { drawRepositoryKey, type RepositoryKey } from "../../keys/index.ts";
import { writeNewRepository } from "../create.ts";
import type { DiskWriter, ManifestHash, Repository, RepositoryOptions, TreeRef } from "../index.ts";
import { openStored } from "../open.ts";
import { type MemoryStorage, memoryStorage } from "../storage/memory.ts";
import type { Storage } from "../storage/storage.ts";
import { workerPool } from "../write/pool.ts";

export async function inFolder(work: (options: RepositoryOptions, folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "stillpoint-repository-"));
  try {
    await work(
      {
        path: join(folder, "repository"),
        keyFile: join(folder, "key"),
        region: "local",
        cacheDir: join(folder, "cache"),
        workers: 2,
        clock: systemClock,
        random: systemRandom,
      },
      folder,
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A repository in memory whose objects a test can look at and damage. */
export interface InMemory {
  readonly storage: MemoryStorage;
  readonly key: RepositoryKey;
  open(storage?: Storage): Promise<Repository>;
  /** Throws the cache away. */
  dropCache(): Promise<void>;
}

export async function inMemory(work: (memory: InMemory) => Promise<void>, random: Random = systemRandom) {
  const cacheDir = await mkdtemp(join(tmpdir(), "stillpoint-cache-"));
  try {
    const storage = memoryStorage();
    const key = drawRepositoryKey(random);
    const options = { region: "local", cacheDir, clock: systemClock, random };
    await writeNewRepository(storage, key, options);
    await work({
      storage,
      key,
      open: (other = storage) => openStored(other, key, { ...options, pool: workerPool(1) }, { release: () => {} }),
      dropCache: () => rm(cacheDir, { recursive: true, force: true }),
    });
  } finally {
    await rm(cacheDir, { recursive: true, force: true });
  }
}

/** Random chunks, text, repeats and zeroes, in turn. */
export function someImage(sizeBytes: number, random: (n: number) => Buffer = randomBytes): Buffer {
  const image = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes; at += CHUNK_BYTES) {
    const kind = (at / CHUNK_BYTES) % 7;
    const length = Math.min(CHUNK_BYTES, sizeBytes - at);
    if (kind < 3) random(length).copy(image, at);
    else if (kind < 5) image.fill(`${random(4).toString("hex")} ${at} `, at, at + length);
    else if (kind === 5) image.fill("the same", at, at + length);
  }
  return image;
}

export interface Written {
  readonly tree: TreeRef;
  readonly stats: Awaited<ReturnType<DiskWriter["finish"]>>["stats"];
  readonly manifest: ManifestHash;
  readonly pointId: string;
}

export interface PointToWrite {
  readonly image: Buffer;
  readonly anchor?: TreeRef | null;
  /** Byte ranges to write; all when absent. */
  readonly ranges?: readonly (readonly [number, number])[];
  readonly name?: string;
}

/** One disk, manifest and all; not yet committed to the journal. */
export async function writePoint(repository: Repository, point: PointToWrite): Promise<Written> {
  const { image, anchor = null, ranges = [[0, image.length]], name = systemRandom.uuid() } = point;
  const writer = await repository.beginPoint();
  try {
    const disk = await writer.disk({ sizeBytes: bytes(image.length), anchor });
    await Promise.all(ranges.map(([from, to]) => disk.write(bytes(from), image.subarray(from, to))));
    const { tree, stats } = await disk.finish();
    await writer.sync();
    const pointId = `/points/${name}`;
    const manifest = await writer.writeManifest({
      point: name as PointUid,
      pointId,
      collectionId: "/collections/one",
      createdAt: systemClock.now().toISOString(),
      disks: [{ diskUid: "disk-0" as DiskUid, tree, lineage: "lineage", diskRestorePointId: `${pointId}/disk-0` }],
      nvram: null,
      resource: { name },
      record: {},
      origin: null,
      lockedUntil: null,
      expiresAt: null,
      recordSchema: 1,
    });
    return { tree, stats, manifest, pointId };
  } finally {
    await writer.close();
  }
}

export async function publish(
  repository: Repository,
  kind: "commit" | "delete" | "collection-put",
  payload: unknown,
): Promise<void> {
  await repository.publishEntry(repository.sealEntry(await repository.journalHead(), kind, payload));
}

/** The disk as its stream tells it. */
export async function streamed(repository: Repository, tree: TreeRef): Promise<Buffer> {
  const reader = await repository.openDisk(tree);
  try {
    const image = Buffer.alloc(reader.sizeBytes);
    for await (const { offset, data } of reader.stream()) image.set(data, offset);
    return image;
  } finally {
    await reader.close();
  }
}
