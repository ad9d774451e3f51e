/**
 * `node setup/install.ts [--current]` (as root): copies the program to /opt/stillpoint/{version} and prints that folder.
 * With --current, /opt/stillpoint/current points there afterwards: that is what the systemd units start.
 *
 * A copy, because a clone may lie where the unprivileged user cannot read, and because what runs as a service must not
 * change when somebody edits a work tree.
 */
import { readFileSync } from "node:fs";
import { mkdir, rename, rm, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { copyProgram, installedContent, programContent } from "./program.ts";

const repo = dirname(import.meta.dirname);
const { version } = JSON.parse(readFileSync(join(repo, "package.json"), "utf8")) as { version: string };
const target = join("/opt/stillpoint", version);

const content = programContent(repo);
if (installedContent(target) !== content) {
  const fresh = join("/opt/stillpoint", `.new-${process.pid}`);
  const old = join("/opt/stillpoint", `.old-${process.pid}`);
  await mkdir("/opt/stillpoint", { recursive: true, mode: 0o755 });
  await copyProgram(repo, fresh, content);
  // the same version again (a developer's): what runs keeps its open files; new starts see the new ones
  await rename(target, old).catch(() => {});
  await rename(fresh, target);
  await rm(old, { recursive: true, force: true });
}
if (process.argv.includes("--current")) {
  const link = join("/opt/stillpoint", `.current-${process.pid}`);
  await symlink(version, link);
  await rename(link, "/opt/stillpoint/current");
}
console.log(target);
