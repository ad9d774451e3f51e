import { chmod, mkdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { run, StillpointError } from "../base/index.ts";
import type { GuardOptions } from "./context.ts";
import { checkSocketPath } from "./process.ts";
import type { CaptureId, ScratchRequest } from "./protocol.ts";
import { admit, readSpace } from "./space.ts";

const CREATE_MS = 60_000;

export function captureFolder(options: GuardOptions, capture: CaptureId): string {
  return join(options.captureDir, capture);
}

export function scratchPath(options: GuardOptions, capture: CaptureId, name: string): string {
  return join(captureFolder(options, capture), `${name}.qcow2`);
}

/** Where QEMU's NBD server for this VM's captures listens: one server per QEMU, so one name per VM. */
export function nbdSocketPath(options: GuardOptions, vm: string): string {
  return checkSocketPath(join(options.captureDir, `${vm}.nbd`));
}

/** Permissions of scratch files: a capture folder that is 2770 is shared with the group of a foreign QEMU. */
async function modes(options: GuardOptions): Promise<{ readonly folder: number; readonly file: number }> {
  const { mode } = await stat(options.captureDir);
  const shared = (mode & 0o2070) === 0o2070;
  return shared ? { folder: 0o2770, file: 0o660 } : { folder: 0o700, file: 0o600 };
}

/** The capture's own folder. Repeatable. */
export async function makeCaptureFolder(options: GuardOptions, capture: CaptureId): Promise<void> {
  const folder = captureFolder(options, capture);
  await mkdir(folder, { recursive: true });
  await chmod(folder, (await modes(options)).folder);
}

/**
 * An empty qcow2 image whose bytes on the host are reserved: the file stays small, and what QEMU appends up to
 * `reserveBytes` cannot fail for want of space. Repeatable: an unused file of an earlier call is made anew.
 */
export async function makeScratch(options: GuardOptions, capture: CaptureId, request: ScratchRequest): Promise<string> {
  admit(await readSpace(options.captureDir), request.reserveBytes, options.spaceRule, options.captureDir);
  const path = scratchPath(options, capture, request.name);
  await rm(path, { force: true });
  try {
    const size = `${request.virtualSizeBytes}`;
    await run(
      "qemu-img",
      ["create", "-q", "-f", "qcow2", "-o", "compat=1.1,cluster_size=65536", path, size],
      CREATE_MS,
    );
    await run("fallocate", ["--keep-size", "-l", `${request.reserveBytes}`, path], CREATE_MS);
    await chmod(path, (await modes(options)).file);
    const { blocks } = await stat(path);
    if (blocks * 512 < request.reserveBytes)
      throw new StillpointError(
        "InsufficientSpace",
        `The file system of ${options.captureDir} did not reserve what was asked.`,
        {
          remedy: "Put the capture folder on ext4 or xfs.",
        },
      );
    return path;
  } catch (error) {
    await rm(path, { force: true });
    if (error instanceof StillpointError && /No space left/.test(error.message))
      throw new StillpointError("InsufficientSpace", `The capture folder ${options.captureDir} is full.`, {
        cause: error,
        remedy: "Make room on its file system.",
      });
    throw error;
  }
}

/** Removes the capture's files. Missing is fine. */
export async function removeCaptureFolder(options: GuardOptions, capture: CaptureId): Promise<void> {
  await rm(captureFolder(options, capture), { recursive: true, force: true });
}
