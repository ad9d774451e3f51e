/** Reads points from a copy of the repository, as its owner would after a disaster: no service has a hand in it. */
import { constants } from "node:fs";
import { copyFile, link, mkdir, mkdtemp, open, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock, systemRandom } from "../../../src/base/index.ts";
import {
  type ManifestHash,
  openRepository,
  type PointManifest,
  type Repository,
  type TreeRef,
} from "../../../src/repository/index.ts";
import { makeDataDigest } from "./digest.ts";

export interface StoredPoints {
  readonly repository: Repository;
  manifest(hash: string): Promise<PointManifest>;
  /** Of the whole disk. */
  digest(tree: TreeRef): Promise<string>;
  /** Writes the whole disk into a sparse raw file. */
  write(tree: TreeRef, target: string): Promise<void>;
  close(): Promise<void>;
}

/** Not part of what a copy needs: the lock of whoever has it open, and files nobody has finished. */
const LEFT_OUT = new Set(["lock.db", "lock.db-journal", "tmp"]);

/** Objects are written once and replaced by renaming, so hard links make the copy: cheap, and as it was at that time. */
export async function openStoredPoints(repositoryDir: string, keyFile: string): Promise<StoredPoints> {
  const work = await mkdtemp(join(tmpdir(), "sp-copy-"));
  try {
    await linkTree(repositoryDir, join(work, "repository"));
    await copyFile(keyFile, join(work, "key"), constants.COPYFILE_EXCL);
    const repository = await openRepository({
      path: join(work, "repository"),
      keyFile: join(work, "key"),
      region: "local",
      cacheDir: join(work, "cache"),
      workers: 2,
      clock: systemClock,
      random: systemRandom,
    });
    return {
      repository,
      manifest: (hash) => repository.readManifest(hash as ManifestHash),
      digest: (tree) => digestOf(repository, tree),
      write: (tree, target) => writeTo(repository, tree, target),
      close: async () => {
        await repository.close();
        await rm(work, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await rm(work, { recursive: true, force: true });
    throw error;
  }
}

async function linkTree(from: string, to: string): Promise<void> {
  await mkdir(to, { mode: 0o700 });
  for (const entry of await readdir(from, { withFileTypes: true })) {
    if (LEFT_OUT.has(entry.name)) continue;
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await linkTree(source, target);
    else await link(source, target);
  }
}

async function digestOf(repository: Repository, tree: TreeRef): Promise<string> {
  const digest = makeDataDigest();
  const reader = await repository.openDisk(tree);
  try {
    for await (const { offset, data } of reader.stream()) digest.add(offset, data);
  } finally {
    await reader.close();
  }
  return digest.end(tree.sizeBytes);
}

async function writeTo(repository: Repository, tree: TreeRef, target: string): Promise<void> {
  const reader = await repository.openDisk(tree);
  const file = await open(target, "w");
  try {
    await file.truncate(tree.sizeBytes);
    for await (const { offset, data } of reader.stream()) await file.write(data, 0, data.byteLength, offset);
  } finally {
    await file.close();
    await reader.close();
  }
}
