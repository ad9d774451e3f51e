/** What small changes cost in a repository, and whether the last of many points restores like the first. */
import { open } from "node:fs/promises";
import { constants, zstdCompressSync } from "node:zlib";
import { CHUNK_BYTES, systemRandom } from "../src/base/index.ts";
import type { TreeRef } from "../src/repository/index.ts";
import { type Row, row } from "./lib/report.ts";
import { openStore, type Store, storeFile } from "./lib/store.ts";
import { median, seconds, treeBytes } from "./lib/time.ts";

const WRITES = 4096;

/** 4,096 random 4 KiB writes on a dense disk: all new bytes of the repository against zstd -1 of the touched chunks. */
export async function benchRandomWrites(dir: string, image: string, sizeBytes: number): Promise<readonly Row[]> {
  const store = await openStore(dir);
  try {
    const first = await storeFile(store, image, "base");
    const before = await treeBytes(store.path);
    const chunks = await writeRandomly(image, sizeBytes);
    const bare = await zstdOf(image, chunks);
    const second = await storeFile(store, image, "changed", first.tree, chunks);
    const added = (await treeBytes(store.path)) - before;
    const ratio = added / bare;
    const many = await manyPoints(store, image, second.tree);
    return [
      row(
        "4,096 random 4 KiB writes: new bytes",
        `${ratio.toFixed(3)} × zstd -1 of each touched 64 KiB`,
        "≤ 1.1 ×",
        ratio <= 1.1,
        {
          addedBytes: added,
          bareBytes: bare,
          touchedChunks: chunks.length,
          diskBytes: sizeBytes,
        },
      ),
      ...many,
    ];
  } finally {
    await store.repository.close();
  }
}

async function writeRandomly(image: string, sizeBytes: number): Promise<readonly number[]> {
  const file = await open(image, "r+");
  const touched = new Set<number>();
  try {
    for (let i = 0; i < WRITES; i++) {
      const at = (systemRandom.bytes(6).readUIntBE(0, 6) % (sizeBytes / 4096)) * 4096;
      // A block of text-like bytes, as compressible as the image around it.
      const block = Buffer.from(systemRandom.bytes(2048).toString("hex"));
      await file.write(block, 0, 4096, at);
      touched.add(Math.floor(at / CHUNK_BYTES));
    }
  } finally {
    await file.close();
  }
  return [...touched].sort((a, b) => a - b);
}

async function zstdOf(image: string, chunks: readonly number[]): Promise<number> {
  const file = await open(image, "r");
  const buffer = Buffer.alloc(CHUNK_BYTES);
  let total = 0;
  try {
    for (const chunk of chunks) {
      const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES, chunk * CHUNK_BYTES);
      total += zstdCompressSync(buffer.subarray(0, bytesRead), {
        params: { [constants.ZSTD_c_compressionLevel]: 1 },
      }).length;
    }
  } finally {
    await file.close();
  }
  return total;
}

const POINTS = 500;

/** 500 points without churn: reading the last must not cost more than reading the first. */
async function manyPoints(store: Store, image: string, first: TreeRef): Promise<readonly Row[]> {
  let last = first;
  for (let i = 0; i < POINTS; i++) last = (await storeFile(store, image, `same-${i}`, last, [])).tree;
  const times = { first: [] as number[], last: [] as number[] };
  for (let round = 0; round < 3; round++) {
    times.first.push(await seconds(() => readAll(store, first)));
    times.last.push(await seconds(() => readAll(store, last)));
  }
  const ratio = median(times.last) / median(times.first);
  return [
    row(
      "restore: last of 500 points without churn",
      `${ratio.toFixed(3)} × the first`,
      "± 5 %",
      Math.abs(ratio - 1) <= 0.05,
      times,
    ),
  ];
}

async function readAll(store: Store, tree: TreeRef): Promise<void> {
  const reader = await store.repository.openDisk(tree);
  try {
    for await (const _ of reader.stream());
  } finally {
    await reader.close();
  }
}
