import type { ResourceId } from "../../base/index.ts";
import type { Context } from "../context.ts";
import type { Operation, OperationKind, Vm } from "../model.ts";
import { conflict } from "../names.ts";
import { newOperation, refuseBusy } from "../operations/operation.ts";
import type { Performer } from "../operations/perform.ts";
import type { CatalogReads } from "../ports.ts";
import { disksOf, needVm, powerOf, refuseAdopted } from "./read.ts";

type PowerKind = Extract<OperationKind, "vm-start" | "vm-power-off" | "vm-deallocate">;

/**
 * Starts an own VM. While a point of it is being created this is a reset in the same QEMU; when there is no QEMU, the
 * point reads the images themselves, and a start would write below it: Conflict.
 */
export async function startVm(ctx: Context, id: ResourceId): Promise<Operation> {
  const { power } = await powerOf(ctx, await ctx.catalog.read((tx) => needVm(tx, id)));
  return begin(ctx, id, "vm-start", "running", null, async (tx, vm) => {
    for (const { disk } of await disksOf(tx, vm))
      if (disk.provisioningState !== "Succeeded")
        throw conflict(`The disk '${disk.name}' is in the state ${disk.provisioningState}.`, "Wait for it to end.");
    const [point] = power === "deallocated" ? await tx.creating(vm.vmUid) : [];
    if (point) {
      const percent = ctx.progress.get(point.operationId) ?? point.percent;
      throw conflict(
        `The restore point '${point.name}' reads the disks of the deallocated '${vm.name}' (${percent} % copied).`,
        "Start it when the point has ended, or delete the point.",
      );
    }
  });
}

export async function powerOffVm(ctx: Context, id: ResourceId, skipShutdown: boolean): Promise<Operation> {
  return begin(ctx, id, "vm-power-off", "stopped", { skipShutdown });
}

export async function deallocateVm(ctx: Context, id: ResourceId): Promise<Operation> {
  return begin(ctx, id, "vm-deallocate", "deallocated", null);
}

async function begin(
  ctx: Context,
  id: ResourceId,
  kind: PowerKind,
  desiredPower: Vm["desiredPower"],
  input: unknown,
  check: (tx: CatalogReads, vm: Vm) => Promise<void> = async () => {},
): Promise<Operation> {
  ctx.tasks.admit();
  const operation = await ctx.catalog.transaction(async (tx) => {
    const vm = await needVm(tx, id);
    refuseAdopted(vm, "Stillpoint does not switch it on or off");
    if (vm.provisioningState === "Creating" || vm.provisioningState === "Deleting")
      throw conflict(`The virtual machine '${vm.name}' is in the state ${vm.provisioningState}.`);
    await refuseBusy(tx, vm.id);
    await check(tx, vm);
    const started = newOperation(ctx, kind, vm.id, input);
    await tx.putResource({ ...vm, desiredPower });
    await tx.putOperation(started);
    return started;
  });
  ctx.perform(operation);
  return operation;
}

/** Starts the guest as the catalog describes it, giving it a variable store first when it needs one. Repeatable. */
export async function startMachine(ctx: Context, id: ResourceId): Promise<void> {
  const { vm, disks } = await ctx.catalog.read(async (tx) => {
    const vm = await needVm(tx, id);
    return { vm, disks: await disksOf(tx, vm) };
  });
  const nvramPath = vm.nvramPath ?? (vm.machine.firmware === "uefi" ? await ctx.images.createNvram(vm.vmUid) : null);
  if (nvramPath !== vm.nvramPath)
    await ctx.catalog.transaction(async (tx) => tx.putResource({ ...(await needVm(tx, id)), nvramPath }));
  await ctx.machines.start(
    { ...vm, nvramPath },
    disks.map(({ disk }) => disk),
  );
}

const stays = async () => {};

export const vmStart: Performer = {
  run: async (ctx, operation) => {
    await startMachine(ctx, operation.resourceId);
    // A VM whose creation failed at its start is well once it starts.
    return async (tx) => {
      const vm = await needVm(tx, operation.resourceId);
      if (vm.provisioningState === "Failed") await tx.putResource({ ...vm, provisioningState: "Succeeded" });
      return null;
    };
  },
  fail: stays,
};

export const vmPowerOff: Performer = {
  run: async (ctx, operation) => {
    const { skipShutdown } = operation.input as { readonly skipShutdown: boolean };
    const vm = await ctx.catalog.read((tx) => needVm(tx, operation.resourceId));
    await ctx.machines.powerOff(vm.vmUid, skipShutdown);
    return async () => null;
  },
  fail: stays,
};

export const vmDeallocate: Performer = {
  run: async (ctx, operation) => {
    const vm = await ctx.catalog.read((tx) => needVm(tx, operation.resourceId));
    await ctx.machines.deallocate(vm.vmUid);
    return async () => null;
  },
  fail: stays,
};
