import { dirname, join } from "node:path";
import { type Random, StillpointError } from "../../base/index.ts";
import { damaged } from "../format/object.ts";
import { type Files, systemFiles } from "./files.ts";
import { checkName, type ObjectWriter, type Storage } from "./storage.ts";

/** Unfinished objects. Whatever lies here when a repository is opened was never promised to anybody. */
const TEMPORARY = "tmp";

export interface DirectoryStorageOptions {
  readonly root: string;
  readonly random: Random;
  readonly files?: Files;
}

/**
 * Objects as files below one directory of a local file system. Writing: new file in `tmp/`, write, fsync, rename (or
 * link, where the name must be taken exclusively), fsync of the directory. `root` must exist.
 */
export async function directoryStorage(options: DirectoryStorageOptions): Promise<Storage> {
  const { root, random, files = systemFiles } = options;
  const pathOf = (name: string) => join(root, checkName(name));
  const temporaryPath = () => join(root, TEMPORARY, random.bytes(16).toString("hex"));
  /** Directories whose own names are known to be durable. */
  const folders = new Set<string>([root]);

  async function makeFolder(path: string): Promise<void> {
    if (folders.has(path)) return;
    const parent = dirname(path);
    await makeFolder(parent);
    await files.mkdir(path).catch(ignore("EEXIST"));
    await files.syncDirectory(parent);
    folders.add(path);
  }

  async function begin(name: string): Promise<ObjectWriter> {
    const target = pathOf(name);
    await makeFolder(dirname(target));
    return fileWriter(files, temporaryPath(), async (temporary) => {
      await files.rename(temporary, target);
      await files.syncDirectory(dirname(target));
    });
  }

  async function create(name: string, content: Uint8Array): Promise<"created" | "same" | "other"> {
    const target = pathOf(name);
    await makeFolder(dirname(target));
    let outcome: "created" | "same" | "other" = "created";
    const writer = await fileWriter(files, temporaryPath(), async (temporary) => {
      try {
        await files.link(temporary, target);
      } catch (error) {
        if (codeOf(error) !== "EEXIST") throw error;
        outcome = (await files.read(target, 0, content.length + 1)).equals(content) ? "same" : "other";
        if (outcome === "other") return files.unlink(temporary);
        // Whoever made it may have died before its fsyncs, or had one fail: put the bytes just synced in its place.
        await files.rename(temporary, target);
      }
      if (outcome === "created") await files.unlink(temporary);
      await files.syncDirectory(dirname(target));
    });
    await writer.append([content]);
    await writer.commit();
    return outcome;
  }

  await makeFolder(join(root, TEMPORARY));
  for await (const left of files.walk(join(root, TEMPORARY)))
    await files.unlink(join(root, TEMPORARY, left.path)).catch(ignore("ENOENT"));

  return {
    begin,
    create,
    readRange: async (name, offset, length) => {
      const piece = await files.read(pathOf(name), offset, length).catch((error) => {
        if (codeOf(error) !== "ENOENT") throw error;
        throw new StillpointError("NotFound", `${name} is not in the repository.`, { target: name, cause: error });
      });
      if (piece.length < length) throw damaged(name, "it is shorter than it must be");
      return piece;
    },
    read: async (name) => {
      const path = pathOf(name);
      try {
        return await files.read(path, 0, await files.size(path));
      } catch (error) {
        if (codeOf(error) === "ENOENT") return null;
        throw error;
      }
    },
    size: (name) => files.size(pathOf(name)).catch(ignore("ENOENT", null)),
    list: (folder) => listFolder(files, root, folder),
    delete: (name) => files.unlink(pathOf(name)).catch(ignore("ENOENT")),
    close: async () => {},
  };
}

/** A file in `tmp/` that `place` brings under its name once its bytes are durable. */
async function fileWriter(
  files: Files,
  temporary: string,
  place: (temporary: string) => Promise<void>,
): Promise<ObjectWriter> {
  const file = await files.create(temporary);
  let position = 0;
  let open = true;
  const close = async () => {
    if (open) {
      open = false;
      await file.close();
    }
  };
  const abort = async () => {
    await close().catch(() => {});
    await files.unlink(temporary).catch(() => {});
  };
  return {
    append: async (parts) => {
      const at = position;
      for (const part of parts) position += part.length;
      await file.write(at, parts);
    },
    commit: async () => {
      try {
        await file.sync();
        await close();
        await place(temporary);
      } catch (error) {
        await abort();
        throw error;
      }
    },
    abort,
  };
}

async function* listFolder(files: Files, root: string, folder: string) {
  const under = join(root, checkName(folder.replace(/\/$/, "")));
  if ((await files.size(under).catch(ignore("ENOENT", null))) === null) return; // no object has been in it yet
  for await (const file of files.walk(under)) yield { name: join(folder, file.path), sizeBytes: file.sizeBytes };
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

function ignore(code: string): (error: unknown) => undefined;
function ignore<T>(code: string, value: T): (error: unknown) => T;
function ignore<T>(code: string, value?: T) {
  return (error: unknown) => {
    if (codeOf(error) === code) return value;
    throw error;
  };
}
