/** Ground truth that does not come from Stillpoint's own reading: QEMU's tools, and the guest's sequence files. */
import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { run } from "../../../src/base/index.ts";
import type { DiskRestorePoint } from "../../../src/domain/index.ts";
import type { Repository, TreeRef } from "../../../src/repository/index.ts";

const MINUTE_MS = 60_000;

/** Reads a whole NBD export into a raw file with qemu-img: another client than the one under test. */
export async function readExport(socket: string, name: string, target: string): Promise<void> {
  const source = `driver=nbd,server.type=unix,server.path=${socket},export=${name}`;
  await run("qemu-img", ["convert", "--image-opts", "-O", "raw", source, target], 5 * MINUTE_MS);
}

/** Reads a staging file into a raw file with qemu-img. */
export async function readImage(path: string, format: string, target: string): Promise<void> {
  await run("qemu-img", ["convert", "-f", format, "-O", "raw", path, target], 5 * MINUTE_MS);
}

/** Writes what the repository holds of a disk into a raw file, through its reader. */
export async function readPoint(repository: Repository, disk: DiskRestorePoint, target: string): Promise<void> {
  const reader = await repository.openDisk(disk.tree as TreeRef);
  const file = await open(target, "w");
  try {
    await file.truncate(disk.sizeBytes);
    for await (const piece of reader.stream()) await file.write(piece.data, 0, piece.data.byteLength, piece.offset);
  } finally {
    await file.close();
    await reader.close();
  }
}

/** SHA-256 of a file's content, holes as zeroes. */
export async function digest(path: string): Promise<string> {
  const hash = createHash("sha256");
  const file = await open(path, "r");
  try {
    for await (const piece of file.createReadStream({ highWaterMark: 1 << 20 })) hash.update(piece as Buffer);
  } finally {
    await file.close();
  }
  return hash.digest("hex");
}
