import { chmod, copyFile, mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Random, StillpointError, syncDirectory, type VmUid } from "../base/index.ts";
import { partialPath, publish, removeFile } from "./publish.ts";

/** Where the UEFI variable stores of own VMs lie, one file each: `{dir}/{vmUid}.fd`. */
export interface NvramStore {
  readonly dir: string;
  pathOf(vm: VmUid): string;
  /** Whether a store is there (it is whole then). */
  has(vm: VmUid): Promise<boolean>;
  /** Lets `fill` write the bytes under a temporary name; durable under its own name when it returns. */
  make(vm: VmUid, fill: (partial: string) => Promise<void>): Promise<string>;
}

export function createNvramStore(dir: string, random: Random): NvramStore {
  const pathOf = (vm: VmUid) => join(dir, `${vm}.fd`);
  const has = async (vm: VmUid) => {
    const stats = await stat(pathOf(vm)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return null;
      throw error;
    });
    return stats !== null;
  };
  return {
    dir,
    pathOf,
    has,
    make: async (vm, fill) => {
      if ((await mkdir(dir, { recursive: true, mode: 0o700 })) !== undefined) await syncDirectory(join(dir, ".."));
      const path = pathOf(vm);
      const partial = partialPath(path, random);
      try {
        await fill(partial);
        await chmod(partial, 0o600);
        await publish(partial, path);
      } catch (error) {
        await removeFile(partial);
        throw error;
      }
      return path;
    },
  };
}

/** A fresh store for a new VM, as the firmware ships it. One that is there stays: the guest may have written to it. */
export async function freshNvram(store: NvramStore, vm: VmUid, templatePath: string): Promise<string> {
  if (await store.has(vm)) return store.pathOf(vm);
  return store.make(vm, (partial) => ofTemplate(() => copyFile(templatePath, partial)));
}

/** Whether the firmware that ships this template can use a store of that size: sizes tell OVMF's layouts apart. */
export async function templateHasSize(templatePath: string, sizeBytes: number): Promise<boolean> {
  return ofTemplate(async () => (await stat(templatePath)).size === sizeBytes);
}

async function ofTemplate<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new StillpointError(
      "InternalError",
      `The firmware's variable template cannot be read: ${(error as Error).message}.`,
      { remedy: "Install ovmf, or name the right file in host.qemu.firmwareVars.", cause: error },
    );
  }
}
