/** Which consistency a capture attempts, and which it reached. Never another one in silence. */
import { StillpointError } from "../base/index.ts";
import type { ConsistencyMode } from "../domain/index.ts";
import type { FreezeFacts, VmFacts } from "../guard/protocol.ts";

export interface ModeDecision {
  readonly freeze: boolean;
  readonly reason: string;
}

/** `facts` is null for a VM without a QEMU process. Throws what the point must fail with. */
export function decideMode(requested: ConsistencyMode | null, facts: VmFacts | null): ModeDecision {
  if (requested === "ApplicationConsistent")
    throw new StillpointError(
      "VMRestorePointClientError",
      "Application-consistent restore points need in-guest scripts or VSS, which this version does not drive.",
      { target: "properties.consistencyMode", remedy: "Omit consistencyMode for a file-system-consistent point." },
    );
  if (facts?.status !== "running") return decideStopped(requested, facts?.status ?? null);
  if (requested === "CrashConsistent") return { freeze: false, reason: "crash consistency was requested" };
  if (facts.agent === "connected") return { freeze: true, reason: "file systems frozen through the guest agent" };
  throw new StillpointError(
    "VMAgentStatusCommunicationError",
    facts.agent === "absent"
      ? "VM has not reported status for VM agent or extensions: no guest agent is connected."
      : "VM has not reported status for VM agent or extensions: the guest agent does not answer.",
    { remedy: "Start qemu-guest-agent in the guest, or ask for --consistency-mode CrashConsistent." },
  );
}

function decideStopped(requested: ConsistencyMode | null, status: string | null): ModeDecision {
  const state = status === null ? "deallocated" : status === "shutdown" ? "stopped" : `not running (${status})`;
  if (requested === "FileSystemConsistent")
    throw new StillpointError(
      "VMRestorePointClientError",
      `The virtual machine is ${state}: its file systems cannot be frozen.`,
      {
        target: "properties.consistencyMode",
        remedy: "Start it, or ask for --consistency-mode CrashConsistent.",
      },
    );
  return { freeze: false, reason: `the virtual machine was ${state}` };
}

export interface ReachedMode {
  readonly mode: ConsistencyMode;
  readonly reason: string;
  readonly alarm: string | null;
}

/**
 * What the instant proved. A freeze that was asked for by name and did not hold fails the point; one that came with
 * an omitted mode leaves the point with the lesser mode it really has, and an alarm.
 */
export function reachedMode(
  requested: ConsistencyMode | null,
  planned: ModeDecision,
  freeze: FreezeFacts | null,
): ReachedMode {
  if (!planned.freeze || !freeze) return { mode: "CrashConsistent", reason: planned.reason, alarm: null };
  if (freeze.held && freeze.frozenFilesystems > 0)
    return {
      mode: "FileSystemConsistent",
      reason: `${freeze.frozenFilesystems} file systems were frozen for ${Math.round(freeze.frozenMs)} ms and thawed`,
      alarm: null,
    };
  const why =
    freeze.frozenFilesystems === 0
      ? "the guest agent froze no file system"
      : `the freeze did not hold (${freeze.frozenFilesystems} frozen, ${freeze.thawedFilesystems} thawed, ${Math.round(freeze.frozenMs)} ms)`;
  if (requested === "FileSystemConsistent")
    throw new StillpointError("VMRestorePointClientError", `File-system consistency was not reached: ${why}.`, {
      target: "properties.consistencyMode",
      remedy: "Retry, or ask for --consistency-mode CrashConsistent.",
    });
  return { mode: "CrashConsistent", reason: why, alarm: why };
}
