/** The guest's kernel and its initial RAM disk. */
import { chmod, copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { StillpointError } from "../../src/base/index.ts";
import { run } from "../../src/base/spawn.ts";
import { MODULES } from "./recipe.ts";

/** Path of the kernel image inside an unpacked kernel package. */
export async function kernelImage(kernelRoot: string): Promise<string> {
  const name = (await readdir(join(kernelRoot, "boot"))).find((file) => file.startsWith("vmlinuz-"));
  if (!name) throw new StillpointError("NotFound", "The kernel package holds no boot/vmlinuz-*.");
  return join(kernelRoot, "boot", name);
}

/** Writes a gzip-compressed cpio archive that loads the drivers and switches to the root file system. */
export async function makeInitrd(
  kernelRoot: string,
  busybox: string,
  files: string,
  work: string,
  target: string,
): Promise<void> {
  for (const folder of ["bin", "proc", "sys", "dev", "root", "modules"])
    await mkdir(join(work, folder), { recursive: true });
  await copyFile(busybox, join(work, "bin/busybox"));
  await copyFile(join(files, "initrd-init"), join(work, "init"));
  await chmod(join(work, "init"), 0o755);
  const ordered = await modulesInOrder(join(kernelRoot, "lib/modules"));
  for (const path of ordered) await copyFile(path, join(work, "modules", basename(path)));
  await writeFile(join(work, "modules/order"), `${ordered.map((path) => basename(path)).join("\n")}\n`);
  const pack = 'cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -6 -n > "$2"';
  await run("sh", ["-c", pack, "sh", work, target], 60_000);
}

/** The modules of the recipe with everything they depend on, dependencies first. */
async function modulesInOrder(root: string): Promise<readonly string[]> {
  const paths = new Map<string, string>();
  for (const entry of await readdir(root, { recursive: true }))
    if (entry.endsWith(".ko")) paths.set(moduleName(basename(entry, ".ko")), join(root, entry));
  const ordered: string[] = [];
  const visit = async (name: string): Promise<void> => {
    const path = paths.get(moduleName(name));
    if (!path) throw new StillpointError("NotFound", `The kernel package has no module ${name}.`);
    if (ordered.includes(path)) return;
    for (const dependency of dependenciesOf(await readFile(path))) await visit(dependency);
    ordered.push(path);
  };
  for (const name of MODULES) await visit(name);
  return ordered;
}

const moduleName = (name: string) => name.replaceAll("-", "_");

/** A module names what it needs in its `.modinfo` section: `depends=a,b`. */
function dependenciesOf(module: Buffer): readonly string[] {
  const at = module.indexOf("\0depends=");
  if (at < 0) return [];
  const start = at + "\0depends=".length;
  return module
    .subarray(start, module.indexOf(0, start))
    .toString()
    .split(",")
    .filter((name) => name !== "");
}
