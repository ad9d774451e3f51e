/** The demonstration guest: a small real Linux that boots from its own disk. Built once per recipe and kept. */
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import { StillpointError } from "../../src/base/index.ts";
import { makeOsDisk } from "./disk.ts";
import { kernelImage, makeInitrd } from "./initrd.ts";
import { dependencyOf, download, unpack } from "./packages.ts";
import { KERNEL_META_PACKAGE, LAYOUT, ROOT_PACKAGES, recipeId, UEFI_LOADER_PACKAGE } from "./recipe.ts";
import { finishRoot } from "./rootfs.ts";

export { makeDataDisk } from "./disk.ts";
export { LAYOUT } from "./recipe.ts";

export interface GuestImage {
  /** qcow2 without a backing file; copy it, never run it in place. Boots by BIOS and by UEFI. */
  readonly osDisk: string;
  readonly rootOffsetBytes: number;
  readonly rootBytes: number;
}

/** Where built guests are kept: for the whole machine when root builds them. */
function guestCache(): string {
  const base = process.getuid?.() === 0 ? "/var/cache/stillpoint" : join(homedir(), ".cache/stillpoint");
  return join(base, "guest");
}

/** The guest image of the present recipe; null when it has not been built yet. */
export function findGuest(): GuestImage | null {
  for (const cache of new Set([guestCache(), "/var/cache/stillpoint/guest"])) {
    const osDisk = join(cache, recipeId(), "os.qcow2");
    if (existsSync(osDisk)) return { osDisk, rootOffsetBytes: LAYOUT.rootOffsetBytes, rootBytes: LAYOUT.rootBytes };
  }
  return null;
}

/** Builds the guest unless it is there. Two builders at once are fine: the first to finish wins. */
export async function buildGuest(say: (line: string) => void): Promise<GuestImage> {
  const present = findGuest();
  if (present) return present;
  if (process.arch !== "x64")
    throw new StillpointError("OperationNotAllowed", "The demonstration guest is built for x86-64 hosts only.");
  const cache = guestCache();
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, ".build-"));
  try {
    const image = await buildInto(work, say);
    await mkdir(join(work, "ready"));
    await chmod(image, 0o644);
    await rename(image, join(work, "ready", basename(image)));
    await writeFile(join(work, "ready/README"), "Built from Debian packages by setup/guest; safe to delete.\n");
    await rename(join(work, "ready"), join(cache, recipeId())).catch(ignoreOccupied);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  const built = findGuest();
  if (!built) throw new StillpointError("InternalError", "The guest was built but is not in its cache.");
  return built;
}

async function buildInto(work: string, say: (line: string) => void): Promise<string> {
  const files = join(import.meta.dirname, "files");
  say("guest: fetching its Debian packages");
  const kernelPackage = await dependencyOf(KERNEL_META_PACKAGE, "linux-image-");
  const debs = await download([kernelPackage, UEFI_LOADER_PACKAGE, ...ROOT_PACKAGES], join(work, "debs"));
  const root = join(work, "root");
  const kernelRoot = join(work, "kernel");
  const loaderRoot = join(work, "loader");
  say("guest: unpacking");
  for (const [name, deb] of debs)
    await unpack(deb, name === kernelPackage ? kernelRoot : name === UEFI_LOADER_PACKAGE ? loaderRoot : root);
  await finishRoot(root, files);
  say("guest: writing its disk");
  const initrd = join(work, "initrd.gz");
  await makeInitrd(kernelRoot, join(root, "bin/busybox"), files, join(work, "initrd"), initrd);
  const target = join(work, "os.qcow2");
  const uefiLoader = join(loaderRoot, "usr/lib/systemd/boot/efi/systemd-bootx64.efi");
  await makeOsDisk({ kernel: await kernelImage(kernelRoot), initrd, root, uefiLoader, files, work }, target);
  return target;
}

function ignoreOccupied(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
}
