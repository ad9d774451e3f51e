/** Everything that a capture could leave behind: in QEMU, in the guard, on disk, among the processes. */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { isDeepStrictEqual } from "node:util";
import type { FaultSite } from "./site.ts";
import { within } from "./wait.ts";

/** What must be the same before and after; bitmaps, whose names differ, are judged by {@link checkBitmaps}. */
export interface Traces {
  readonly qemuPid: number | null;
  readonly status: string;
  readonly jobs: readonly string[];
  readonly exports: readonly string[];
  readonly nodes: readonly string[];
  readonly filters: readonly (readonly string[])[];
  readonly files: readonly string[];
  readonly captures: number;
  /** Programs of the site that run, such as a `qemu-storage-daemon` somebody forgot. */
  readonly programs: readonly string[];
}

export async function tracesOf(fault: FaultSite): Promise<Traces> {
  const { pid, status, jobs, exports, nodes, disks } = await fault.facts();
  return {
    qemuPid: pid,
    status,
    jobs,
    exports,
    nodes: [...nodes].sort(),
    filters: disks.map((disk) => disk.filters),
    files: (await readdir(fault.site.captureDir, { recursive: true })).sort(),
    captures: (await fault.captures()).length,
    programs: await programs(fault),
  };
}

async function programs({ site }: FaultSite): Promise<readonly string[]> {
  const names = site.processes().map(async (pid) => {
    const line = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
    const script = line.find((word) => word.endsWith(".ts"));
    return (script ?? line[0] ?? "").split("/").at(-1) ?? "";
  });
  return (await Promise.all(names)).filter(Boolean).sort();
}

/** Releasing and undoing may go on for a while after the point has settled. */
const CLEAN_MS = 60_000;

/** Waits until everything is as it was. */
export async function untilClean(fault: FaultSite, before: Traces): Promise<void> {
  let now: unknown = null;
  const asBefore = async () => {
    now = await tracesOf(fault).catch((error: unknown) => error);
    return isDeepStrictEqual(now, before) || null;
  };
  await within(CLEAN_MS, "", asBefore).catch(() => assert.deepEqual(now, before, "something was left behind"));
}

/** One bitmap of ours at most on each disk, recording; none on a disk that QEMU pushes. */
export async function checkBitmaps(fault: FaultSite): Promise<void> {
  for (const { node, iothread, bitmaps } of (await fault.facts()).disks) {
    const ours = bitmaps.filter(({ name }) => name.startsWith("sp-"));
    assert.ok(ours.length <= (iothread ? 0 : 1), `${node} has ${ours.map(({ name }) => name).join(", ") || "none"}`);
    for (const bitmap of ours) assert.ok(bitmap.recording && !bitmap.inconsistent, `${bitmap.name} records`);
  }
}
