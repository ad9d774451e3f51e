/** The guest's root file system: BusyBox, perl, the guest agent, and our few scripts. */
import { chmod, copyFile, mkdir, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/base/spawn.ts";

const SCRIPTS = ["boot", "agent", "writer", "power", "console", "destroy", "halt"] as const;
/** Nothing in the guest reads these, and they are most of the bytes. */
const UNUSED = ["usr/share", "usr/lib/x86_64-linux-gnu/gconv", "lib/systemd", "lib/udev", "etc/init.d"] as const;

/** Turns a folder of unpacked packages into a bootable root. */
export async function finishRoot(root: string, files: string): Promise<void> {
  for (const path of UNUSED) await rm(join(root, path), { recursive: true, force: true });
  for (const folder of ["b", "c", "dev", "proc", "sys", "run", "tmp", "root", "etc/sp", "sbin", "usr/bin", "var"])
    await mkdir(join(root, folder), { recursive: true });
  const { stdout } = await run(join(root, "bin/busybox"), ["--list"], 10_000);
  for (const applet of stdout.split("\n"))
    if (applet !== "" && applet !== "busybox")
      await symlink("busybox", join(root, "bin", applet)).catch(ignoreExisting);
  await symlink("../bin/busybox", join(root, "sbin/init")).catch(ignoreExisting);
  await symlink("/run", join(root, "var/run")).catch(ignoreExisting);
  await copyFile(join(files, "inittab"), join(root, "etc/inittab"));
  for (const script of SCRIPTS) await install(join(files, script), join(root, "etc/sp", script));
  await install(join(files, "shutdown"), join(root, "sbin/shutdown"));
}

async function install(from: string, to: string): Promise<void> {
  await copyFile(from, to);
  await chmod(to, 0o755);
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== "EEXIST") throw error;
}
