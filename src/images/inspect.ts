import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { extname } from "node:path";
import { bytes, roundUp, StillpointError } from "../base/index.ts";
import type { DiskFormat, ImageFacts } from "../domain/index.ts";
import { MAX_DISK_BYTES, parseQcow2, QCOW2_HEADER_BYTES } from "./qcow2.ts";

const FORMATS: Readonly<Record<string, DiskFormat>> = { ".qcow2": "qcow2", ".raw": "raw", ".img": "raw" };

/**
 * The format an image has by its name. Never by its content: a guest that writes a qcow2 header into its raw disk must
 * not make the host open other files.
 */
export function formatOf(path: string): DiskFormat {
  const format = FORMATS[extname(path)];
  if (format) return format;
  throw new StillpointError("InvalidParameter", `The format of '${path}' cannot be told from its name.`, {
    target: "sourceUri",
    remedy: "Name the file .qcow2, .raw or .img.",
  });
}

/** Size and soundness of an image of a known format. Reads at most 64 KiB. Throws InvalidParameter with the reason. */
export async function imageFacts(path: string, format: DiskFormat): Promise<ImageFacts> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    throw new StillpointError(
      "InvalidParameter",
      `The image '${path}' cannot be opened: ${(error as Error).message}.`,
      {
        target: "sourceUri",
        remedy: "It must be readable for the user that the service runs as.",
        cause: error,
      },
    );
  }
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) throw new StillpointError("InvalidParameter", `The image '${path}' is no regular file.`);
    if (format === "raw") return rawFacts(path, stats.size);
    const head = Buffer.alloc(Math.min(QCOW2_HEADER_BYTES, stats.size));
    const { bytesRead } = await handle.read(head, 0, head.length, 0);
    const { sizeBytes } = parseQcow2(head.subarray(0, bytesRead), stats.size);
    return { format, sizeBytes: bytes(sizeBytes), rawFileBytes: null };
  } finally {
    await handle.close();
  }
}

/** QEMU rounds a raw file's length up to 512: the rest reads as zeroes. */
function rawFacts(path: string, fileBytes: number): ImageFacts {
  if (fileBytes === 0 || fileBytes > MAX_DISK_BYTES)
    throw new StillpointError("InvalidParameter", `The image '${path}' has ${fileBytes} bytes.`);
  const sizeBytes = roundUp(fileBytes, 512);
  return { format: "raw", sizeBytes, rawFileBytes: fileBytes === sizeBytes ? null : bytes(fileBytes) };
}
