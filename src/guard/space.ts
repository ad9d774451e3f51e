import { statfs } from "node:fs/promises";
import { type Bytes, bytes, GiB, StillpointError } from "../base/index.ts";

/** How much of the capture folder's file system must stay free. */
export interface SpaceRule {
  readonly minFreeBytes: number;
  readonly minFreeRatio: number;
}

/** No scratch file is made when less than 10 % or 2 GiB would stay free. */
export const SPACE_RULE: SpaceRule = { minFreeBytes: 2 * GiB, minFreeRatio: 0.1 };

/**
 * Where a reservation by `fallocate` holds: later writes into the range cannot fail for want of space. On copying file
 * systems (btrfs, ZFS) and on the network it does not, so there a guest could be stopped by a full disk.
 */
const RESERVING = new Map([
  [0xef53, "ext4"],
  [0x58465342, "xfs"],
  [0x01021994, "tmpfs"],
  [0xf2f52010, "f2fs"],
  [0x794c7630, "overlayfs"],
]);

export interface Space {
  readonly freeBytes: Bytes;
  readonly totalBytes: Bytes;
  readonly type: number;
}

export async function readSpace(path: string): Promise<Space> {
  const fs = await statfs(path);
  return { freeBytes: bytes(fs.bavail * fs.bsize), totalBytes: bytes(fs.blocks * fs.bsize), type: fs.type };
}

/** Throws InsufficientSpace when taking `reserveBytes` would break the rule, or the file system cannot reserve. */
export function admit(space: Space, reserveBytes: number, rule: SpaceRule, folder: string): void {
  if (!RESERVING.has(space.type))
    throw new StillpointError(
      "InsufficientSpace",
      `The file system of the capture folder ${folder} (type 0x${space.type.toString(16)}) cannot reserve space.`,
      { remedy: `Put the capture folder on one of ${[...new Set(RESERVING.values())].join(", ")}.` },
    );
  const left = space.freeBytes - reserveBytes;
  const wanted = Math.max(rule.minFreeBytes, space.totalBytes * rule.minFreeRatio);
  if (left < wanted)
    throw new StillpointError(
      "InsufficientSpace",
      `The capture folder ${folder} has ${mib(space.freeBytes)} free; a point needs ${mib(reserveBytes)} of it, and ${mib(wanted)} must stay free.`,
      { remedy: "Make room on its file system, or wait for other points to finish." },
    );
}

/**
 * Whether a running capture must end: reservations protect its own files, but a file system this full is about to fail
 * others, the guest's disks among them. Half of what is asked of a new capture.
 */
export function exhausted(space: Space, rule: SpaceRule): boolean {
  return space.freeBytes < Math.max(rule.minFreeBytes, space.totalBytes * rule.minFreeRatio) / 2;
}

function mib(n: number): string {
  return `${Math.ceil(n / (1024 * 1024))} MiB`;
}
