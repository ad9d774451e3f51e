import { type FileHandle, open, rename, unlink } from "node:fs/promises";
import { dirname } from "node:path";

/** Makes the names in a directory durable. An error is final: a second fsync of the same thing can lie. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Replaces `path` so that after a power cut either the old or the new content is there, never a mixture:
 * write a sibling, fsync it, rename, fsync the directory. Durable when it returns.
 */
export async function replaceFile(path: string, content: Uint8Array | string, mode = 0o600): Promise<void> {
  const temporary = `${path}.tmp-${process.pid}`;
  let handle: FileHandle | undefined;
  try {
    handle = await open(temporary, "w", mode);
    await handle.writeFile(content);
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(temporary, path);
  } catch (error) {
    await handle?.close();
    await unlink(temporary).catch(() => {});
    throw error;
  }
  await syncDirectory(dirname(path));
}
