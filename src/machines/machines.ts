/** The domain's `Machines` port over the guard of the host. */
import { diskNode, StillpointError, type VmUid } from "../base/index.ts";
import type { Anchor, Machines, VmPower } from "../domain/index.ts";
import type { Guard, QmpStep, VmState } from "../guard/protocol.ts";
import { adopted } from "./adopted.ts";
import { machineSpec } from "./spec.ts";

/** Longest wait for a guest that was asked politely; then it is ended the hard way. */
const GRACE_MS = 60_000;
/** A start waits for QEMU's monitor; a stop for the guest's grace. Both outlast the guard's own deadlines. */
const START_MS = 60_000;
const STOP_MS = GRACE_MS + 60_000;

export function createMachines(guard: Guard): Machines {
  return {
    async start(vm, disks) {
      await guard.call("vm.start", { spec: machineSpec(vm, disks) }, START_MS);
    },
    async powerOff(vm, skipShutdown) {
      await ifKnown(guard.call("vm.powerOff", { vm, graceMs: skipShutdown ? 0 : GRACE_MS }, STOP_MS));
    },
    async deallocate(vm) {
      await ifKnown(guard.call("vm.deallocate", { vm, graceMs: GRACE_MS }, STOP_MS));
    },
    async forget(vm) {
      await ifKnown(guard.call("vm.forget", { vm }));
    },
    power: (vm) => power(guard, vm),
    adopt: async (vm, qmpSocket, qgaSocket) =>
      adopted(await guard.call("vm.adopt", { vm, qmpSocket, qgaSocket }, START_MS)),
    async release(vm, anchors) {
      await guard.call("vm.release", { vm, steps: anchors.flatMap(bitmapRemoval) }, STOP_MS);
    },
    async resizeOnline(vm, disk, sizeBytes) {
      const node = diskNode(disk.diskUid);
      const step: QmpStep = {
        name: "resize",
        execute: "block_resize",
        arguments: { "node-name": node, size: sizeBytes },
      };
      await guard.call("vm.execute", { vm, step });
    },
  };
}

/** A VM that was never started is unknown to the guard: it is off, and there is nothing to forget. */
async function ifKnown(call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (!(error instanceof StillpointError && error.code === "ResourceNotFound")) throw error;
  }
}

async function power(guard: Guard, vm: VmUid): Promise<VmPower> {
  const state = (await guard.call("vm.list", {})).find((candidate) => candidate.vm === vm);
  if (!state || state.process === "down")
    return { power: "deallocated", reason: state?.reason ?? null, agent: "absent" };
  if (state.process === "unreachable") return { power: "unreachable", reason: state.reason, agent: "unknown" };
  const agent = state.status === "running" ? await agentOf(guard, vm) : "unknown";
  return { power: runState(state), reason: state.reason, agent };
}

/** A VM may stop between two questions; then nothing is known of its agent, and that is the answer. */
async function agentOf(guard: Guard, vm: VmUid): Promise<VmPower["agent"]> {
  try {
    return (await guard.call("vm.inspect", { vm })).agent;
  } catch (error) {
    if (error instanceof StillpointError && error.status >= 500) return "unknown";
    throw error;
  }
}

/** QMP run states in Azure's words. A guest that powered off leaves QEMU in `shutdown`. */
function runState(state: VmState): VmPower["power"] {
  if (state.status === "running") return "running";
  return state.status === "shutdown" || state.reason === "powered-off" || state.quitting ? "stopped" : "paused";
}

/** Only bitmaps of ours, by their never re-used names; gone already is fine. */
function bitmapRemoval(anchor: Anchor): readonly QmpStep[] {
  if (anchor.bitmap === null || anchor.node === null) return [];
  return [
    {
      name: `remove-bitmap-${anchor.node}`,
      execute: "block-dirty-bitmap-remove",
      arguments: { node: anchor.node, name: anchor.bitmap },
      tolerate: ["not found", "Cannot find"],
    },
  ];
}
