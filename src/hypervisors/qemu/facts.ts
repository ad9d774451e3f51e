import type { QmpClient } from "../qmp/index.ts";
import { readDisk, readNvram } from "./disks.ts";
import { readGraph } from "./graph.ts";
import { readMachine, readUncapturable } from "./hardware.ts";
import { flag, type Json, list, object, optionalText, text } from "./read.ts";
import type { QemuFacts } from "./types.ts";

/** Bounds the questions that a hostile QEMU can make us ask. */
const MAX_DEVICES = 256;

/**
 * Asks a QEMU for everything a capture needs to know of it. `foreign`: also for the machine, which nobody has told us.
 * Rejects like {@link QmpClient.execute}, and with HypervisorUnavailable when an answer is not what QEMU answers.
 */
export async function readFacts(qmp: QmpClient, foreign: boolean): Promise<QemuFacts> {
  const status = await readStatus(qmp);
  const graph = await readGraph(qmp);
  const devices = list(await qmp.execute("query-block"))
    .filter((device) => device["inserted"] !== undefined && device["qdev"] !== undefined && !flag(device["removable"]))
    .slice(0, MAX_DEVICES);
  const flash = devices.filter(isFlash);
  const disks = [];
  for (const device of devices) if (!isFlash(device)) disks.push(await readDisk(qmp, graph, device));
  return {
    qemuVersion: qmp.version,
    ...status,
    accelerator: flag(object(await qmp.execute("query-kvm"))["enabled"]) ? "kvm" : "tcg",
    disks: disks.map(({ facts }) => facts),
    nvram: readNvram(graph, flash),
    jobs: list(await qmp.execute("query-jobs")).map((job) => text(job["id"])),
    exports: list(await qmp.execute("query-block-exports")).map((entry) => text(entry["id"])),
    nodes: graph.names,
    uncapturable: await readUncapturable(qmp),
    machine: foreign ? await readMachine(qmp, disks, flash.length > 0) : null,
  };
}

/** The run state, and whether a migration is under way or has taken the guest elsewhere. */
export async function readStatus(qmp: QmpClient): Promise<{ readonly status: string; readonly migrating: boolean }> {
  const status = text(object(await qmp.execute("query-status"))["status"]);
  const migration = optionalText(object(await qmp.execute("query-migrate"))["status"]);
  const settled = ["", "none", "completed", "failed", "cancelled"].includes(migration);
  return { status, migrating: !settled || status === "postmigrate" || status === "finish-migrate" };
}

/** A job as QEMU has it now. */
export interface JobFacts {
  readonly id: string;
  readonly status: string;
  readonly error: string | null;
}

export async function readJobs(qmp: QmpClient): Promise<readonly JobFacts[]> {
  return list(await qmp.execute("query-jobs")).map((job) => ({
    id: text(job["id"]),
    status: text(job["status"]),
    error: job["error"] === undefined ? null : text(job["error"]),
  }));
}

/** Whether somebody in the guest has the agent's channel open; null when QEMU does not know a channel of that kind. */
export async function readAgentChannel(qmp: QmpClient, match: (channel: Json) => boolean): Promise<boolean | null> {
  const channel = list(await qmp.execute("query-chardev")).find(match);
  return channel ? flag(channel["frontend-open"]) : null;
}

function isFlash(device: Json): boolean {
  return optionalText(device["qdev"]).startsWith("/machine/system.flash");
}
