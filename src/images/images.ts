import { lstat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Bytes, type DiskUid, type Random, roundUp, StillpointError, syncDirectory } from "../base/index.ts";
import type { DiskFormat, Images } from "../domain/index.ts";
import { type Confinement, createConfinement, type Pool } from "./confine.ts";
import { formatOf, imageFacts } from "./inspect.ts";
import { growImage, newImage } from "./make.ts";
import { freshNvram, type NvramStore, templateHasSize } from "./nvram.ts";
import { partialPath, publish, removeFile, syncFile } from "./publish.ts";
import { MAX_DISK_BYTES } from "./qcow2.ts";

export interface ImagesOptions {
  /** Name of this host, as it stands in `pool://{host}/…`. */
  readonly host: string;
  readonly pools: readonly Pool[];
  readonly skus: Readonly<Record<string, { readonly pool: string; readonly format: DiskFormat }>>;
  /** The firmware's variable store, copied for each new UEFI VM. */
  readonly firmwareVarsPath: string;
  readonly nvram: NvramStore;
  readonly random: Random;
  /** User that may own images beside root; default: the one this process runs as. */
  readonly uid?: number;
}

/** The domain's port `Images` on the pools of this host. */
export function createImages(options: ImagesOptions): Images {
  const uid = options.uid ?? process.getuid?.() ?? 0;
  const confinement = createConfinement(options.host, options.pools, uid);
  return {
    resolve: async (uri) => {
      const path = await confinement.resolve(uri);
      formatOf(path);
      return path;
    },
    confine: (path) => confinement.existing(path, { anyOwner: true }),
    newPath: (diskUid, sku, format) => newPath(options, diskUid, sku, format),
    inspect: async (path) => {
      await confinement.existing(path, { anyOwner: true });
      return imageFacts(path, formatOf(path));
    },
    createEmpty: (path, format, sizeBytes) => createEmpty(confinement, options.random, path, format, sizeBytes),
    grow: (path, format, sizeBytes) => grow(confinement, path, format, sizeBytes),
    remove: async (path) => {
      if (dirname(path) !== options.nvram.dir) await confinement.place(path);
      await removeFile(path);
    },
    nvramFits: (sizeBytes) => templateHasSize(options.firmwareVarsPath, sizeBytes),
    createNvram: (vm) => freshNvram(options.nvram, vm, options.firmwareVarsPath),
  };
}

function newPath(options: ImagesOptions, uid: DiskUid, sku: string, format: DiskFormat): string {
  const wanted = options.skus[sku];
  const pool = options.pools.find((one) => one.name === wanted?.pool);
  if (!pool)
    throw new StillpointError("InvalidParameter", `There is no disk type '${sku}' at this site.`, {
      target: "sku.name",
      remedy: `Known: ${Object.keys(options.skus).join(", ")}.`,
    });
  return join(pool.path, `${uid}.${format}`);
}

async function createEmpty(
  confinement: Confinement,
  random: Random,
  path: string,
  format: DiskFormat,
  sizeBytes: Bytes,
): Promise<void> {
  checkSize(sizeBytes);
  await confinement.place(path);
  if (await exists(path)) return sameAsBefore(path, format, sizeBytes);
  const partial = partialPath(path, random);
  try {
    await newImage(partial, format, sizeBytes);
    await publish(partial, path);
  } catch (error) {
    await removeFile(partial);
    throw error;
  }
}

/** A repeated call after a crash: what is there must be what is asked for, and durable. */
async function sameAsBefore(path: string, format: DiskFormat, sizeBytes: Bytes): Promise<void> {
  const facts = await imageFacts(path, format);
  if (facts.sizeBytes !== roundUp(sizeBytes, 512))
    throw new StillpointError("Conflict", `There is another image at ${path} already; it was left as it is.`);
  await syncFile(path);
  await syncDirectory(dirname(path));
}

async function grow(confinement: Confinement, path: string, format: DiskFormat, sizeBytes: Bytes): Promise<void> {
  checkSize(sizeBytes);
  await confinement.existing(path, { anyOwner: true });
  const now = await imageFacts(path, format);
  if (sizeBytes < now.sizeBytes)
    throw new StillpointError("InvalidParameter", `A disk cannot shrink from ${now.sizeBytes} to ${sizeBytes} bytes.`, {
      target: "properties.diskSizeGB",
    });
  if (sizeBytes > now.sizeBytes) await growImage(path, format, roundUp(sizeBytes, 512));
  await syncFile(path);
}

function checkSize(sizeBytes: number): void {
  if (sizeBytes < 512 || sizeBytes > MAX_DISK_BYTES)
    throw new StillpointError("InvalidParameter", `A disk of ${sizeBytes} bytes cannot be made.`, {
      target: "properties.diskSizeGB",
    });
}

async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}
