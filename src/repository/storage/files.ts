import { type FileHandle, link, mkdir, open, readdir, rename, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { syncDirectory } from "../../base/index.ts";

/** The system calls the directory storage stands on; replaced in crash tests by ones that forget what was not synced. */
export interface Files {
  /** A new file, mode 0600; fails when it exists. */
  create(path: string): Promise<OpenFile>;
  syncDirectory(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Fails with EEXIST when `to` is there. */
  link(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  mkdir(path: string): Promise<void>;
  /** As many bytes as there are, up to `length`. */
  read(path: string, offset: number, length: number): Promise<Buffer>;
  size(path: string): Promise<number>;
  /** Files below a directory, as paths relative to it, with sizes. */
  walk(path: string): AsyncIterable<{ readonly path: string; readonly sizeBytes: number }>;
}

export interface OpenFile {
  write(position: number, parts: readonly Uint8Array[]): Promise<void>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

export const systemFiles: Files = {
  create: async (path) => openFile(await open(path, "wx", 0o600)),
  syncDirectory,
  rename,
  link,
  unlink,
  mkdir: async (path) => {
    await mkdir(path, { mode: 0o700 });
  },
  read: readPiece,
  size: async (path) => (await stat(path)).size,
  walk: walkFiles,
};

function openFile(handle: FileHandle): OpenFile {
  return {
    write: async (position, parts) => {
      let at = position;
      let rest = [...parts];
      while (rest.length > 0) {
        const { bytesWritten } = await handle.writev(rest, at);
        at += bytesWritten;
        rest = dropBytes(rest, bytesWritten);
      }
    },
    sync: () => handle.sync(),
    close: () => handle.close(),
  };
}

/** What of `parts` remains after their first `count` bytes: a write may be short. */
function dropBytes(parts: readonly Uint8Array[], count: number): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let left = count;
  for (const part of parts) {
    if (left >= part.length) left -= part.length;
    else {
      rest.push(part.subarray(left));
      left = 0;
    }
  }
  return rest;
}

async function readPiece(path: string, offset: number, length: number): Promise<Buffer> {
  const handle = await open(path, "r");
  try {
    const out = Buffer.allocUnsafeSlow(length);
    let at = 0;
    while (at < length) {
      const { bytesRead } = await handle.read(out, at, length - at, offset + at);
      if (bytesRead === 0) break;
      at += bytesRead;
    }
    return out.subarray(0, at);
  } finally {
    await handle.close();
  }
}

async function* walkFiles(path: string): AsyncIterable<{ path: string; sizeBytes: number }> {
  for (const entry of await readdir(path, { withFileTypes: true })) {
    if (entry.isDirectory()) {
      for await (const inner of walkFiles(join(path, entry.name)))
        yield { path: join(entry.name, inner.path), sizeBytes: inner.sizeBytes };
    } else if (entry.isFile()) {
      const size = await stat(join(path, entry.name)).then(
        (facts) => facts.size,
        (error) => {
          if (error.code === "ENOENT") return null; // deleted meanwhile
          throw error;
        },
      );
      if (size !== null) yield { path: entry.name, sizeBytes: size };
    }
  }
}
