import { chmod } from "node:fs/promises";
import { type ErrorCode, run, StillpointError } from "../base/index.ts";
import type { DiskFormat } from "../domain/index.ts";

const QEMU_IMG_TIMEOUT_MS = 60_000;

/**
 * Makes an empty image that reads as zeroes: sparse raw, or qcow2 version 3 with 64 KiB clusters (the grain of the
 * bitmaps and the repository). `path` must not be there yet. Not durable yet.
 */
export async function newImage(path: string, format: DiskFormat, sizeBytes: number): Promise<void> {
  const options = format === "qcow2" ? ["-o", "compat=1.1,cluster_size=65536,lazy_refcounts=off"] : [];
  await qemuImg(["create", "-q", "-f", format, ...options, path, String(sizeBytes)]);
  await chmod(path, 0o600);
}

/** Grows an image to `sizeBytes`; the new end reads as zeroes. The format is told, never probed. Not durable yet. */
export async function growImage(path: string, format: DiskFormat, sizeBytes: number): Promise<void> {
  await qemuImg(["resize", "-q", "-f", format, path, String(sizeBytes)]);
}

async function qemuImg(args: readonly string[]): Promise<void> {
  try {
    await run("qemu-img", args, QEMU_IMG_TIMEOUT_MS);
  } catch (error) {
    throw explained(error as StillpointError);
  }
}

/** What qemu-img says, as an error that a client can act on. */
function explained(error: StillpointError): StillpointError {
  const known: readonly [RegExp, ErrorCode, string][] = [
    [/No space left|Disk quota exceeded/, "InsufficientSpace", "Free space in the pool, or use another one."],
    [/Failed to get .*lock/, "OperationNotAllowed", "Another process has the image open; end it first."],
    [
      /bitmap/i,
      "OperationNotAllowed",
      "A broken dirty bitmap is in the way: see qemu-img info, remove it with qemu-img bitmap.",
    ],
    [/ENOENT/, "InternalError", "Install qemu-utils."],
  ];
  for (const [pattern, code, remedy] of known)
    if (pattern.test(error.message)) return new StillpointError(code, error.message, { remedy, cause: error });
  return error;
}
