/** The program as guard and service run it in tests: copied out of the work tree, so that another user can read it. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, symlink } from "node:fs/promises";
import { join, resolve } from "node:path";
import { copyModules, copySources, readableByAll } from "../../../setup/program.ts";

const repo = resolve(import.meta.dirname, "../../..");
const CACHE = "/var/cache/stillpoint";

/** The folder to run programs from: the work tree itself for an ordinary user, a copy below `folder` for root. */
export async function programFor(folder: string): Promise<string> {
  if (process.getuid?.() !== 0) return repo;
  const program = join(folder, "program");
  if (existsSync(program)) return program;
  await copySources(repo, program);
  await readableByAll(program);
  await symlink(join(await sharedModules(), "node_modules"), join(program, "node_modules"));
  return program;
}

/** One copy of the packages per lock file, shared by all test programs: 120 MB that never change. */
async function sharedModules(): Promise<string> {
  const lock = createHash("sha256")
    .update(readFileSync(join(repo, "package-lock.json")))
    .digest("hex");
  const shared = join(CACHE, `modules-${lock.slice(0, 16)}`);
  if (existsSync(shared)) return shared;
  await mkdir(CACHE, { recursive: true });
  const work = await mkdtemp(join(CACHE, ".modules-"));
  await copyModules(repo, work);
  await readableByAll(work);
  await rename(work, shared).catch(async (error: NodeJS.ErrnoException) => {
    // another test process was faster
    await rm(work, { recursive: true, force: true });
    if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error;
  });
  return shared;
}
