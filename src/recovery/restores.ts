import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { type Bytes, type Random, roundUp, StillpointError } from "../base/index.ts";
import type { DiskFormat, DiskRestorePoint, Restores } from "../domain/index.ts";
import type { OfflineExports } from "../hypervisors/offline/index.ts";
import { type NvramStore, newImage, partialPath, publish, removeFile } from "../images/index.ts";
import type { DiskReader, Repository, TreeRef } from "../repository/index.ts";
import { pour } from "./pour.ts";
import { openTarget, WRITE_DEPTH } from "./target.ts";

export interface RestoresOptions {
  readonly repository: Pick<Repository, "openDisk">;
  readonly offline: OfflineExports;
  readonly nvram: NvramStore;
  readonly random: Random;
}

interface DiskTarget {
  readonly path: string;
  readonly format: DiskFormat;
  readonly sizeBytes: Bytes;
}

/**
 * The domain's port `Restores`: the bytes of a point become a new image. It is filled under a partial name in the folder
 * of its final one, and gets that only when all of it is durable; an error or an abort leaves nothing. What a killed
 * service leaves is recognised and removed by `removePartials` of images.
 */
export function createRestores(options: RestoresOptions): Restores {
  return {
    restoreDisk: (source, target, progress, signal) => restoreDisk(options, source, target, progress, signal),
    nvramSizeBytes: (tree) => treeRef(tree).sizeBytes,
    restoreNvram: async (tree, vm) => {
      // Repeatable: a store that is there is whole, and the guest may already have written to it.
      if (await options.nvram.has(vm)) return options.nvram.pathOf(vm);
      return options.nvram.make(vm, async (partial) => {
        const reader = await options.repository.openDisk(treeRef(tree));
        try {
          await newImage(partial, "raw", reader.sizeBytes);
          await fill(options, reader, { path: partial, format: "raw", sizeBytes: reader.sizeBytes }, () => {});
        } finally {
          await reader.close();
        }
      });
    },
  };
}

async function restoreDisk(
  options: RestoresOptions,
  source: DiskRestorePoint,
  target: DiskTarget,
  progress: (fraction: number) => void,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const sizeBytes = roundUp(target.sizeBytes, 512);
  const reader = await options.repository.openDisk(treeRef(source.tree));
  const partial = partialPath(target.path, options.random);
  try {
    if (sizeBytes < reader.sizeBytes) throw tooSmall(sizeBytes, reader.sizeBytes);
    await checkSpace(reader, target.path, signal);
    await newImage(partial, target.format, sizeBytes);
    await fill(options, reader, { ...target, path: partial, sizeBytes }, progress, signal);
    signal.throwIfAborted();
    await publish(partial, target.path);
  } catch (error) {
    await removeFile(partial);
    throw explained(error, target.path);
  } finally {
    await reader.close();
  }
}

/** Pours the disk's data into the image at `target.path`; durable when it returns. */
async function fill(
  options: RestoresOptions,
  reader: DiskReader,
  target: DiskTarget,
  progress: (fraction: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  const image = await openTarget(target.path, target.format, options.offline);
  try {
    let told = 0;
    // Runs come in disk order, so the place of the newest is how far it is; zeroes are passed over at once.
    const write = async (offset: number, data: Uint8Array) => {
      signal?.throwIfAborted();
      await image.write(offset, data);
      const percent = Math.floor(((offset + data.length) * 100) / reader.sizeBytes);
      if (percent > told) {
        told = percent;
        progress(percent / 100);
      }
    };
    await pour(reader.stream(signal), WRITE_DEPTH, write);
    await image.flush();
    progress(1);
  } finally {
    await image.close();
  }
}

/** Present data that surely do not fit are refused before anything is written. Walks the tree, not the data. */
async function checkSpace(reader: DiskReader, path: string, signal: AbortSignal): Promise<void> {
  const stats = await statfs(dirname(path));
  const freeBytes = stats.bavail * stats.bsize;
  // Some file systems tell no sizes at all; there the writes themselves must show it.
  if (stats.blocks === 0 || freeBytes > reader.sizeBytes) return;
  let neededBytes = 0;
  for await (const extent of reader.extents()) {
    signal.throwIfAborted();
    if (!extent.zero) neededBytes += extent.length;
  }
  if (neededBytes <= freeBytes) return;
  throw new StillpointError(
    "InsufficientSpace",
    `The disk has ${neededBytes} bytes of data; ${freeBytes} bytes are free in ${dirname(path)}.`,
    { remedy: "Free space in the pool, or restore to a disk type of another pool." },
  );
}

/** What the catalog keeps as an opaque value, made sure of. */
function treeRef(value: unknown): TreeRef {
  const tree = value as Partial<TreeRef> | null;
  if (typeof tree?.domain === "string" && typeof tree.root === "string" && Number.isSafeInteger(tree.sizeBytes))
    return tree as TreeRef;
  throw new StillpointError("RepositoryDamaged", "The point's record does not name a tree of the repository.");
}

function tooSmall(targetBytes: number, sourceBytes: number): StillpointError {
  return new StillpointError(
    "InvalidParameter",
    `The new disk has ${targetBytes} bytes; the disk of the restore point has ${sourceBytes}.`,
    { target: "properties.diskSizeGB", remedy: "Leave the size out, or ask for at least the source's." },
  );
}

/** A pool that fills up in mid-restore shows as ENOSPC of a plain write. */
function explained(error: unknown, path: string): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (code !== "ENOSPC" && code !== "EDQUOT") return error;
  return new StillpointError("InsufficientSpace", `The pool ran full while ${path} was written.`, {
    remedy: "Free space in the pool, or restore to a disk type of another pool.",
    cause: error,
  });
}
