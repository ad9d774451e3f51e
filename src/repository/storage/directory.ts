import { dirname, join } from "node:path";
import { type Random, StillpointError } from "../../base/index.ts";
import { damaged } from "../format/object.ts";
import { type Files, systemFiles } from "./files.ts";
import { checkName, type ObjectWriter, type Storage } from "./storage.ts";
import { codeOf, readFailed, writeFailed } from "./trouble.ts";

/** Unfinished objects. Whatever lies here when a repository is opened was never promised to anybody. */
const TEMPORARY = "tmp";

export interface DirectoryStorageOptions {
  readonly root: string;
  readonly random: Random;
  readonly files?: Files;
}

/**
 * Objects as files below one directory of a local file system. Writing: new file in `tmp/`, write, fsync, rename (or
 * link, where the name must be taken exclusively), fsync of the directory. `root` must exist. A retry after a failed
 * fsync is always a new file with a new name or a renewed one: the old pages are never asked about again.
 */
export async function directoryStorage(options: DirectoryStorageOptions): Promise<Storage> {
  const { root, random, files = systemFiles } = options;
  const pathOf = (name: string) => join(root, checkName(name));
  const temporaryPath = () => join(root, TEMPORARY, random.bytes(16).toString("hex"));
  const makeFolder = folderMaker(files, root);

  function begin(name: string): Promise<ObjectWriter> {
    const target = pathOf(name);
    return writing(name, async () => {
      await makeFolder(dirname(target));
      return fileWriter(name, files, temporaryPath(), async (temporary) => {
        await files.rename(temporary, target);
        await files.syncDirectory(dirname(target));
      });
    });
  }

  async function create(name: string, content: Uint8Array): Promise<"created" | "same" | "other"> {
    const target = pathOf(name);
    await writing(name, () => makeFolder(dirname(target)));
    let outcome: "created" | "same" | "other" = "created";
    const place = async (temporary: string) => {
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
    };
    const writer = await writing(name, () => fileWriter(name, files, temporaryPath(), place));
    await writer.append([content]);
    await writer.commit();
    return outcome;
  }

  await writing(TEMPORARY, () => makeFolder(join(root, TEMPORARY)));
  for await (const left of files.walk(join(root, TEMPORARY)))
    await files.unlink(join(root, TEMPORARY, left.path)).catch(ignore("ENOENT"));

  return {
    begin,
    create,
    readRange: (name, offset, length) =>
      reading(name, async () => {
        const piece = await files.read(pathOf(name), offset, length).catch((error) => {
          if (codeOf(error) !== "ENOENT") throw error;
          throw new StillpointError("NotFound", `${name} is not in the repository.`, { target: name, cause: error });
        });
        if (piece.length < length) throw damaged(name, "it is shorter than it must be");
        return piece;
      }),
    read: async (name) => {
      const path = pathOf(name);
      const whole = async () => files.read(path, 0, await files.size(path));
      return reading(name, () => whole().catch(ignore("ENOENT", null)));
    },
    size: async (name) => {
      const path = pathOf(name);
      return reading(name, () => files.size(path).catch(ignore("ENOENT", null)));
    },
    list: (folder) => listFolder(files, root, folder),
    delete: async (name) => {
      const path = pathOf(name);
      await writing(name, () => files.unlink(path).catch(ignore("ENOENT")));
    },
    close: async () => {},
  };
}

async function writing<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw writeFailed(name, error);
  }
}

async function reading<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw readFailed(name, error);
  }
}

/** Makes folders durable, each once. One whose fsync failed stays unusable: a second fsync could say ok and lie. */
function folderMaker(files: Files, root: string): (path: string) => Promise<void> {
  const made = new Map<string, Promise<void>>([[root, Promise.resolve()]]);
  const make = async (path: string) => {
    const parent = dirname(path);
    await makeFolder(parent);
    await files.mkdir(path).catch(ignore("EEXIST"));
    await files.syncDirectory(parent);
  };
  const makeFolder = (path: string): Promise<void> => {
    const making = made.get(path) ?? make(path);
    made.set(path, making);
    return making;
  };
  return makeFolder;
}

/** A file in `tmp/` that `place` brings under its name once its bytes are durable. */
async function fileWriter(
  name: string,
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
    await close().catch(() => {}); // given up: what can be tidied is
    await files.unlink(temporary).catch(() => {});
  };
  const orAbort = async (work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      await abort();
      throw writeFailed(name, error);
    }
  };
  return {
    append: (parts) => {
      const at = position;
      for (const part of parts) position += part.length;
      return orAbort(() => file.write(at, parts));
    },
    commit: () =>
      orAbort(async () => {
        await file.sync();
        await close();
        await place(temporary);
      }),
    abort,
  };
}

async function* listFolder(files: Files, root: string, folder: string) {
  const under = join(root, checkName(folder.replace(/\/$/, "")));
  try {
    if ((await files.size(under).catch(ignore("ENOENT", null))) === null) return; // no object has been in it yet
    for await (const file of files.walk(under)) yield { name: join(folder, file.path), sizeBytes: file.sizeBytes };
  } catch (error) {
    throw readFailed(folder, error);
  }
}

function ignore(code: string): (error: unknown) => undefined;
function ignore<T>(code: string, value: T): (error: unknown) => T;
function ignore<T>(code: string, value?: T) {
  return (error: unknown) => {
    if (codeOf(error) === code) return value;
    throw error;
  };
}
