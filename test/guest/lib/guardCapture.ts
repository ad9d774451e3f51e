/** A capture by hand: the calls in their order, over pulled disks, as the service makes them. */
import { randomUUID } from "node:crypto";
import { type Bytes, bytes, MiB } from "../../../src/base/index.ts";
import type {
  CaptureId,
  CaptureOpen,
  GiveUpSteps,
  InstantFacts,
  InstantRequest,
  QmpStep,
  VmFacts,
} from "../../../src/guard/protocol.ts";
import { type GuardHost, VM } from "./guardHost.ts";

const GONE = ["not found", "Failed to find node", "Cannot find"];

export interface HandCapture {
  readonly id: CaptureId;
  readonly open: CaptureOpen;
  /** Each call by its name, in order; all but `instant` may be repeated. */
  readonly calls: readonly (readonly [string, () => Promise<unknown>])[];
  readonly closeSteps: readonly QmpStep[];
  instant(changes?: Partial<InstantRequest>): Promise<InstantFacts>;
  /** Everything up to the readable frozen source. */
  take(changes?: Partial<InstantRequest>): Promise<InstantFacts>;
  close(): Promise<unknown>;
}

export interface HandCaptureOptions {
  readonly silenceMs?: number;
  readonly reserveBytes?: number;
  readonly thresholdBytes?: number;
  /** Bitmaps of the last point, to be frozen by this one, in the order of the nodes. */
  readonly oldBitmaps?: readonly string[];
  /** The nodes to capture; default: all disks. */
  readonly nodes?: readonly string[];
}

export function handCapture(host: GuardHost, facts: VmFacts, options: HandCaptureOptions = {}): HandCapture {
  const id = randomUUID() as CaptureId;
  const tag = `sp-test-${id.slice(0, 8)}`;
  const disks = facts.disks
    .filter((disk) => options.nodes?.includes(disk.node) ?? true)
    .map((disk, index) => ({
      node: disk.node,
      size: disk.sizeBytes,
      name: `${index}`,
      job: `${tag}-${index}`,
      target: `${tag}-${index}t`,
      file: `${tag}-${index}f`,
      bitmap: `${tag}-b${index}`,
      old: options.oldBitmaps?.[index],
    }));
  const reserve = bytes(options.reserveBytes ?? 16 * MiB);
  const open: CaptureOpen = {
    capture: id,
    vm: VM,
    incarnation: facts.incarnation,
    giveUp: undoing(disks),
    jobs: disks.map((disk) => disk.job),
    silenceMs: options.silenceMs ?? 600_000,
  };
  const step = (one: QmpStep) => host.guard.call("capture.step", { capture: id, step: one });
  const instant = (changes: Partial<InstantRequest> = {}) =>
    host.guard.call("capture.instant", {
      capture: id,
      transaction: transaction(disks),
      freeze: null,
      statuses: ["running", "prelaunch", "paused", "shutdown"],
      ...changes,
    });
  const closeSteps = disks.flatMap((disk) => [
    ...ending(disk),
    ...(disk.old ? [removeBitmap(disk.node, disk.old)] : []),
  ]);
  const close = () => host.guard.call("capture.close", { capture: id, steps: closeSteps });

  const prepare: (readonly [string, () => Promise<unknown>])[] = [
    ["open", () => host.guard.call("capture.open", open)],
    ...disks.map((disk) => [`scratch-${disk.name}`, () => scratch(disk.name, disk.size)] as const),
    ["serve", () => host.guard.call("capture.serve", { capture: id })],
    ...disks.flatMap((disk) => [
      [`target-${disk.name}`, async () => step(target(disk, (await scratch(disk.name, disk.size)).path))] as const,
      [`watch-${disk.name}`, () => step(watch(disk, options.thresholdBytes ?? reserve / 2))] as const,
    ]),
  ];
  const after: (readonly [string, () => Promise<unknown>])[] = [
    ...disks.map((disk) => [`export-${disk.name}`, () => step(exporting(disk))] as const),
    ["check", () => host.guard.call("capture.check", { capture: id })],
    ["close", close],
  ];

  function scratch(name: string, size: Bytes) {
    const request = { name, kind: "fleece", virtualSizeBytes: size, reserveBytes: reserve } as const;
    return host.guard.call("capture.scratch", { capture: id, scratch: request });
  }

  return {
    id,
    open,
    calls: [...prepare, ["instant", () => instant()], ...after],
    closeSteps,
    instant,
    take: async (changes) => {
      for (const [, call] of prepare) await call();
      const taken = await instant(changes);
      for (const [name, call] of after) if (name.startsWith("export")) await call();
      return taken;
    },
    close,
  };
}

interface Names {
  readonly node: string;
  readonly job: string;
  readonly target: string;
  readonly file: string;
  readonly bitmap: string;
  readonly old?: string | undefined;
}

function target(disk: Names, filename: string): QmpStep {
  return {
    name: "target",
    execute: "blockdev-add",
    arguments: {
      driver: "qcow2",
      "node-name": disk.target,
      file: { driver: "file", filename, "node-name": disk.file },
      backing: disk.node,
    },
    tolerate: ["Duplicate"],
  };
}

function watch(disk: Names, thresholdBytes: number): QmpStep {
  const args = { "node-name": disk.file, "write-threshold": thresholdBytes };
  return { name: "watch", execute: "block-set-write-threshold", arguments: args };
}

function exporting(disk: Names): QmpStep {
  const args = { id: disk.job, type: "nbd", "node-name": disk.target, name: disk.job, writable: false };
  return {
    name: "export",
    execute: "block-export-add",
    arguments: args,
    tolerate: ["already in use", "already exists"],
  };
}

function transaction(disks: readonly Names[]): QmpStep {
  const backups = disks.map((disk) => ({
    type: "blockdev-backup",
    data: { "job-id": disk.job, device: disk.node, target: disk.target, sync: "none", "auto-dismiss": false },
  }));
  const bitmaps = disks.flatMap((disk) => [
    { type: "block-dirty-bitmap-add", data: { node: disk.node, name: disk.bitmap, granularity: 65536 } },
    ...(disk.old ? [{ type: "block-dirty-bitmap-disable", data: { node: disk.node, name: disk.old } }] : []),
  ]);
  return { name: "transaction", execute: "transaction", arguments: { actions: [...backups, ...bitmaps] } };
}

function ending(disk: Names): readonly QmpStep[] {
  const job = disk.job;
  return [
    { name: "close-export", execute: "block-export-del", arguments: { id: job, mode: "hard" }, tolerate: GONE },
    {
      name: "cancel-job",
      execute: "block-job-cancel",
      arguments: { device: job, force: true },
      tolerate: [...GONE, "in state 'concluded'"],
      untilJobEnds: job,
    },
    { name: "dismiss-job", execute: "job-dismiss", arguments: { id: job }, tolerate: GONE },
    removeTarget(disk),
  ];
}

function removeTarget(disk: Names): QmpStep {
  const args = { "node-name": disk.target };
  return { name: "remove-target", execute: "blockdev-del", arguments: args, tolerate: GONE };
}

function removeBitmap(node: string, name: string): QmpStep {
  return { name: "remove-bitmap", execute: "block-dirty-bitmap-remove", arguments: { node, name }, tolerate: GONE };
}

function undoing(disks: readonly Names[]): GiveUpSteps {
  const rejoin = disks.map((disk): QmpStep => {
    const { node, bitmap, old } = disk;
    const remove = { type: "block-dirty-bitmap-remove", data: { node, name: bitmap } };
    const merge = old
      ? [
          { type: "block-dirty-bitmap-merge", data: { node, target: old, bitmaps: [bitmap] } },
          { type: "block-dirty-bitmap-enable", data: { node, name: old } },
        ]
      : [];
    return { name: "rejoin", execute: "transaction", arguments: { actions: [...merge, remove] }, tolerate: GONE };
  });
  return { before: disks.map(removeTarget), after: [...disks.flatMap(ending), ...rejoin] };
}
