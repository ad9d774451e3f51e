/** Which files are the program, and how they are copied to where it is installed. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { chmod, cp, mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

/** Everything that is installed, besides the production packages. */
const PARTS = [
  "src",
  "setup",
  "systemd",
  "docs",
  "package.json",
  "package-lock.json",
  "README.md",
  "LICENSE",
  "CHANGELOG.md",
];
const CONTENT_FILE = ".content";

/** The pinned Node comes with headers and manuals that nothing here reads: 40 % of its bytes. */
const isNeeded = (path: string) => !/node-linux-[^/]+\/(include|share|CHANGELOG.md)$/.test(path);
const isTest = (path: string) => path.endsWith(".test.ts");

/** A hash over all that would be installed: equal means there is nothing to do. */
export function programContent(repo: string): string {
  const hash = createHash("sha256");
  for (const part of PARTS) {
    const path = join(repo, part);
    if (!existsSync(path)) continue;
    for (const file of filesOf(path)) hash.update(`${file.slice(repo.length)}\0`).update(readFileSync(file));
  }
  return hash.digest("hex");
}

/** The hash that {@link copyProgram} left there last; null when there is no complete program. */
export function installedContent(target: string): string | null {
  const path = join(target, CONTENT_FILE);
  return existsSync(path) ? readFileSync(path, "utf8").trim() : null;
}

/** Copies the program from a clone with its packages installed to `target`, readable by all. Complete when it returns. */
export async function copyProgram(repo: string, target: string, content: string): Promise<void> {
  await rm(target, { recursive: true, force: true });
  await copySources(repo, target);
  await copyModules(repo, target);
  await makeCommand(target);
  await readableByAll(target);
  await writeFile(join(target, CONTENT_FILE), `${content}\n`);
}

/** The program without its packages. */
export async function copySources(repo: string, target: string): Promise<void> {
  await mkdir(target, { recursive: true });
  for (const part of PARTS)
    if (existsSync(join(repo, part)))
      await cp(join(repo, part), join(target, part), { recursive: true, filter: (path) => !isTest(path) });
}

/** The production packages and the pinned Node, as `{target}/node_modules`. */
export async function copyModules(repo: string, target: string): Promise<void> {
  for (const path of productionPackages(repo)) {
    await mkdir(dirname(join(target, path)), { recursive: true });
    await cp(join(repo, path), join(target, path), { recursive: true, verbatimSymlinks: true, filter: isNeeded });
  }
  const arch = process.arch === "arm64" ? "arm64" : "x64";
  await mkdir(join(target, "node_modules/.bin"), { recursive: true });
  await symlink(`../node-linux-${arch}/bin/node`, join(target, "node_modules/.bin/node"));
}

/** Folders below node_modules that the program needs at run time and that are there on this kind of machine. */
export function productionPackages(repo: string): readonly string[] {
  const lock = JSON.parse(readFileSync(join(repo, "package-lock.json"), "utf8")) as {
    packages: Record<string, { dev?: boolean; devOptional?: boolean }>;
  };
  return Object.entries(lock.packages)
    .filter(([path, entry]) => path !== "" && !entry.dev && !entry.devOptional && existsSync(join(repo, path)))
    .map(([path]) => path)
    .filter((path, _, all) => !all.some((other) => path.startsWith(`${other}/`)));
}

/** `bin/stillpoint` is the command line, usable from any folder. */
async function makeCommand(target: string): Promise<void> {
  await mkdir(join(target, "bin"));
  const command = join(target, "bin/stillpoint");
  const script = [
    "#!/bin/sh",
    'home=$(dirname "$(dirname "$(readlink -f "$0")")")',
    'exec "$home/node_modules/.bin/node" "$home/src/programs/cli.ts" "$@"',
    "",
  ];
  await writeFile(command, script.join("\n"));
  await chmod(command, 0o755);
}

/** A clone made under a strict umask must not make a program that only root can read. */
export async function readableByAll(folder: string): Promise<void> {
  await chmod(folder, 0o755);
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) await chmod(path, 0o755);
    else if (entry.isFile()) await chmod(path, isProgram(path) ? 0o755 : 0o644);
  }
}

const isProgram = (path: string) => path.endsWith("/bin/node") || path.endsWith("/bin/stillpoint");

function filesOf(path: string): readonly string[] {
  const entries = existsSync(path) ? readdirOrNull(path) : null;
  if (!entries) return isTest(path) ? [] : [path];
  return entries.flatMap((name) => filesOf(join(path, name)));
}

function readdirOrNull(path: string): readonly string[] | null {
  try {
    return readdirSync(path).sort();
  } catch {
    return null;
  }
}
