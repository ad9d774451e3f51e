import { link, open, readdir, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Random, StillpointError, syncDirectory } from "../base/index.ts";

/** Every file that is still being written bears this prefix, in the folder of its final name. */
export const PARTIAL_PREFIX = ".stillpoint-partial-";

/** A name beside `finalPath` that nobody uses yet; recognisable as ours when a killed service leaves it. */
export function partialPath(finalPath: string, random: Random): string {
  return join(dirname(finalPath), `${PARTIAL_PREFIX}${random.bytes(8).toString("hex")}`);
}

/**
 * Gives a finished file its final name: fsync, link (never replaces: an image once there is never lost), unlink of the
 * temporary name, fsync of the folder. Durable when it returns. Throws Conflict when the name is taken.
 */
export async function publish(partial: string, finalPath: string): Promise<void> {
  await syncFile(partial);
  try {
    await link(partial, finalPath);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    throw new StillpointError("Conflict", `There is a file at ${finalPath} already; it was left as it is.`);
  }
  await unlink(partial);
  await syncDirectory(dirname(finalPath));
}

/** What was written to the file by anyone is durable when it returns. */
export async function syncFile(path: string): Promise<void> {
  const handle = await open(path, "r+");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Unlinks a file; missing is fine. The name's end is durable when it returns. */
export async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  await syncDirectory(dirname(path));
}

/**
 * Removes what a killed service left half-written directly in `folders`, and returns the paths. Only for a service that
 * has the folders to itself and writes nothing yet: at its start.
 */
export async function removePartials(folders: readonly string[]): Promise<readonly string[]> {
  const removed: string[] = [];
  for (const folder of folders) {
    const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    for (const name of names.filter((one) => one.startsWith(PARTIAL_PREFIX))) {
      await unlink(join(folder, name));
      removed.push(join(folder, name));
    }
    if (names.some((one) => one.startsWith(PARTIAL_PREFIX))) await syncDirectory(folder);
  }
  return removed;
}
