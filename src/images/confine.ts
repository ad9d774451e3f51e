import type { Stats } from "node:fs";
import { lstat } from "node:fs/promises";
import { isAbsolute, join, normalize } from "node:path";
import { StillpointError } from "../base/index.ts";
import { PARTIAL_PREFIX } from "./publish.ts";

export interface Pool {
  readonly name: string;
  readonly path: string;
}

/** Where images may lie. */
export interface Confinement {
  /** Path of `pool://{host}/{pool}/{relative}`; the file is there, is ours or root's, and nobody else can write it. */
  resolve(uri: string): Promise<string>;
  /** The same for an absolute path. With `anyOwner` the file itself (never a folder) may belong to another user. */
  existing(path: string, options: { readonly anyOwner: boolean }): Promise<string>;
  /** For a file that may not be there yet: its folder is checked. */
  place(path: string): Promise<string>;
}

/**
 * Every component from `/` to the image must be owned by root or by us, unwritable for everybody else, and no symlink:
 * then nobody can change what a checked path means before QEMU opens it. A folder above the pool may be writable when it
 * is sticky (`/tmp`), for there nobody can rename what is not his.
 */
export function createConfinement(host: string, pools: readonly Pool[], uid: number): Confinement {
  const owners = new Set([0, uid]);
  const poolOf = (path: string) => {
    const pool = pools.find((one) => path.startsWith(`${one.path}/`));
    if (!pool)
      throw wrong(path, "lies in no pool of this host", "Move the image into a pool, or add its folder as one.");
    return pool;
  };
  const checkFolders = async (path: string, pool: Pool) => {
    const parts = path.split("/").slice(1, -1);
    for (let n = 0; n <= parts.length; n++) {
      const folder = `/${parts.slice(0, n).join("/")}`;
      const stats = await facts(folder, path);
      if (!stats.isDirectory()) throw wrong(folder, stats.isSymbolicLink() ? "is a symbolic link" : "is no folder");
      const stickyAbove = (stats.mode & 0o1000) !== 0 && pool.path.startsWith(folder === "/" ? "/" : `${folder}/`);
      checkOwner(folder, stats, owners, stickyAbove);
    }
  };
  const place = async (path: string) => {
    checkSpelling(path);
    await checkFolders(path, poolOf(path));
    return path;
  };
  const existing = async (path: string, { anyOwner }: { readonly anyOwner: boolean }) => {
    await place(path);
    const stats = await facts(path, path);
    if (!stats.isFile()) throw wrong(path, stats.isSymbolicLink() ? "is a symbolic link" : "is no regular file");
    if (!anyOwner) checkOwner(path, stats, owners, false);
    return path;
  };
  return {
    place,
    existing,
    resolve: (uri) => existing(pathOfUri(uri, host, pools), { anyOwner: false }),
  };
}

/** `pool://{host}/{pool}/{relative}` as it is written: nothing is decoded, so nothing can hide in an encoding. */
function pathOfUri(uri: string, host: string, pools: readonly Pool[]): string {
  const match = /^pool:\/\/([^/]+)\/([^/]+)\/(.+)$/s.exec(uri);
  const [, hostName, poolName, relative] = match ?? [];
  if (!hostName || !poolName || !relative)
    throw new StillpointError("InvalidParameter", "The source is no pool://{host}/{pool}/{path}.", {
      target: "sourceUri",
    });
  if (hostName !== host)
    throw new StillpointError("InvalidParameter", `There is no host '${hostName}' at this site.`, {
      target: "sourceUri",
    });
  const pool = pools.find((one) => one.name === poolName);
  if (!pool)
    throw new StillpointError("InvalidParameter", `Host '${host}' has no pool '${poolName}'.`, {
      target: "sourceUri",
      remedy: `Its pools: ${pools.map((one) => one.name).join(", ")}.`,
    });
  const parts = relative.split("/");
  if (parts.some((part) => part === "" || part === "." || part === ".."))
    throw wrong(relative, "has an empty component, '.' or '..'");
  return join(pool.path, ...parts);
}

function checkSpelling(path: string): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is refused here
  if (!isAbsolute(path) || normalize(path) !== path || path.length > 4000 || /[\x00-\x1f\x7f]/.test(path))
    throw wrong(path, "is no plain absolute path");
  if (path.split("/").some((part) => part.startsWith(PARTIAL_PREFIX)))
    throw wrong(path, "is an image that is still being written");
}

async function facts(component: string, path: string): Promise<Stats> {
  try {
    return await lstat(component);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ENOTDIR") throw wrong(path, "does not exist");
    if (code === "EACCES") throw wrong(path, `cannot be reached: no right to look into ${component}`);
    throw new StillpointError("InternalError", `Cannot look at ${component}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function checkOwner(path: string, stats: Stats, owners: ReadonlySet<number>, writableIsFine: boolean): void {
  if (!owners.has(stats.uid))
    throw wrong(path, `belongs to user ${stats.uid}`, "Only root and the service's user may own it and its folders.");
  if ((stats.mode & 0o022) !== 0 && !writableIsFine)
    throw wrong(path, "can be written by others", `Take that away: chmod go-w ${path}`);
}

function wrong(path: string, reason: string, remedy?: string): StillpointError {
  const shown = path.replace(/[^\x20-\x7e]/g, "?").slice(0, 300);
  const extras = { target: "sourceUri", ...(remedy ? { remedy } : {}) };
  return new StillpointError("InvalidParameter", `The image path '${shown}' is refused: it ${reason}.`, extras);
}
