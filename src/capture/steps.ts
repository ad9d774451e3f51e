/** The QMP commands of a plan, in the only orders that were shown to be safe. Pure. */
import { CHUNK_BYTES } from "../base/index.ts";
import type { GiveUpSteps, QmpStep } from "../guard/protocol.ts";
import type { CapturePlan, DiskPlan } from "./plan.ts";

const GONE = ["not found", "is not found", "Failed to find node", "Cannot find", "No such"];
const THERE = ["already exists", "Duplicate node", "already in use"];

/** Everything that can be made ready before the point in time; changes nothing that the guest or an anchor sees. */
export function prepareSteps(plan: CapturePlan, scratchPaths: Readonly<Record<string, string>>): readonly QmpStep[] {
  return plan.disks.flatMap((disk) => [
    ...disk.staleBitmaps.map(
      (name): QmpStep => ({
        name: `remove-stale-bitmap-${disk.scratch.name}`,
        ...removeBitmap(disk, name),
        tolerate: GONE,
      }),
    ),
    {
      name: `add-target-${disk.scratch.name}`,
      execute: "blockdev-add",
      arguments: {
        driver: "qcow2",
        "node-name": disk.names.target,
        file: { driver: "file", filename: scratchPath(scratchPaths, disk), "node-name": disk.names.targetFile },
        // A fleece shows the live disk wherever the guest has not written since; staging stands alone.
        backing: disk.method === "pull" ? disk.node : null,
      },
      tolerate: THERE,
    },
    {
      name: `watch-target-${disk.scratch.name}`,
      execute: "block-set-write-threshold",
      arguments: { "node-name": disk.names.targetFile, "write-threshold": thresholdBytes(disk) },
    },
  ]);
}

/** Half a fleece is the time to give up; staging was reserved for all it can take, so only its very end is watched. */
function thresholdBytes(disk: DiskPlan): number {
  return disk.method === "pull" ? Math.floor(disk.scratch.reserveBytes / 2) : disk.scratch.reserveBytes;
}

function scratchPath(paths: Readonly<Record<string, string>>, disk: DiskPlan): string {
  const path = paths[disk.scratch.name];
  if (path === undefined) throw new Error(`no scratch file '${disk.scratch.name}'`);
  return path;
}

/**
 * The point in time. First every backup, then every bitmap: a disk is quiesced only when its backup is prepared, and
 * the other order loses writes of iothread disks without a word (17 of 106 points on 7.2, 72 of 100 on 10.0).
 */
export function transactionStep(plan: CapturePlan): QmpStep {
  const backups = plan.disks.map((disk) => ({
    type: "blockdev-backup",
    data: {
      "job-id": disk.names.job,
      device: disk.node,
      target: disk.names.target,
      sync: disk.method === "pull" ? "none" : "full",
      "auto-dismiss": false,
    },
  }));
  const bitmaps = plan.disks.flatMap((disk) => [
    ...(disk.newBitmap
      ? [
          {
            type: "block-dirty-bitmap-add",
            data: {
              node: disk.node,
              name: disk.newBitmap,
              granularity: CHUNK_BYTES,
              persistent: disk.persistentBitmap,
            },
          },
        ]
      : []),
    ...(disk.oldBitmap
      ? [{ type: "block-dirty-bitmap-disable", data: { node: disk.node, name: disk.oldBitmap } }]
      : []),
  ]);
  return { name: "transaction", execute: "transaction", arguments: { actions: [...backups, ...bitmaps] } };
}

/** Opens the frozen source of each pulled disk for reading. Repeatable. */
export function exportSteps(plan: CapturePlan): readonly QmpStep[] {
  return pulled(plan).map((disk) => ({
    name: `export-${disk.scratch.name}`,
    execute: "block-export-add",
    arguments: {
      id: disk.names.export,
      type: "nbd",
      "node-name": disk.names.target,
      name: disk.names.export,
      writable: false,
      ...(disk.oldBitmap ? { bitmaps: [disk.oldBitmap] } : {}),
    },
    tolerate: THERE,
  }));
}

/** The server's end goes first: a client that leaves an open export of an iothread disk kills QEMU 7.2. */
export function closeExportSteps(plan: CapturePlan): readonly QmpStep[] {
  return pulled(plan).map((disk) => ({
    name: `close-export-${disk.scratch.name}`,
    execute: "block-export-del",
    arguments: { id: disk.names.export, mode: "hard" },
    tolerate: GONE,
  }));
}

/** After a push job has concluded, its staging file is closed so that we may open it. */
export function detachStagingSteps(disk: DiskPlan): readonly QmpStep[] {
  return [dismiss(disk), removeTarget(disk)];
}

/** After the commit: nothing of the capture stays but the new bitmaps. */
export function releaseSteps(plan: CapturePlan): readonly QmpStep[] {
  return [
    ...closeExportSteps(plan),
    ...plan.disks.flatMap(endJob),
    ...plan.disks.flatMap((disk) =>
      disk.oldBitmap
        ? [{ name: `remove-old-bitmap-${disk.scratch.name}`, ...removeBitmap(disk, disk.oldBitmap), tolerate: GONE }]
        : [],
    ),
  ];
}

/** Undoing: the old bitmaps go on recording, with what the new ones saw merged in, so the old anchors stay bases. */
export function giveUpSteps(plan: CapturePlan): GiveUpSteps {
  return {
    before: plan.disks.map(removeTarget),
    after: [...closeExportSteps(plan), ...plan.disks.flatMap(endJob), ...plan.disks.flatMap(rejoinBitmaps)],
  };
}

function rejoinBitmaps(disk: DiskPlan): readonly QmpStep[] {
  const { node, oldBitmap, newBitmap } = disk;
  if (!newBitmap) return [];
  const remove = { type: "block-dirty-bitmap-remove", data: { node, name: newBitmap } };
  const actions = oldBitmap
    ? [
        { type: "block-dirty-bitmap-merge", data: { node, target: oldBitmap, bitmaps: [newBitmap] } },
        { type: "block-dirty-bitmap-enable", data: { node, name: oldBitmap } },
        remove,
      ]
    : [remove];
  // All or nothing: once the new bitmap is gone, a repeat finds it missing and that is the proof that it was done.
  return [
    { name: `rejoin-bitmaps-${disk.scratch.name}`, execute: "transaction", arguments: { actions }, tolerate: GONE },
  ];
}

function endJob(disk: DiskPlan): readonly QmpStep[] {
  return [
    {
      name: `cancel-job-${disk.scratch.name}`,
      execute: "block-job-cancel",
      arguments: { device: disk.names.job, force: true },
      // A push that has ended by itself cannot be cancelled any more.
      tolerate: [...GONE, "cannot accept command verb", "in state 'concluded'"],
      untilJobEnds: disk.names.job,
    },
    dismiss(disk),
    removeTarget(disk),
  ];
}

function dismiss(disk: DiskPlan): QmpStep {
  return {
    name: `dismiss-job-${disk.scratch.name}`,
    execute: "job-dismiss",
    arguments: { id: disk.names.job },
    tolerate: GONE,
  };
}

function removeTarget(disk: DiskPlan): QmpStep {
  return {
    name: `remove-target-${disk.scratch.name}`,
    execute: "blockdev-del",
    arguments: { "node-name": disk.names.target },
    tolerate: GONE,
  };
}

function removeBitmap(disk: DiskPlan, name: string): Pick<QmpStep, "execute" | "arguments"> {
  return { execute: "block-dirty-bitmap-remove", arguments: { node: disk.node, name } };
}

function pulled(plan: CapturePlan): readonly DiskPlan[] {
  return plan.disks.filter((disk) => disk.method === "pull");
}
