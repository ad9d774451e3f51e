import { idKey, type ResourceId } from "../../base/index.ts";
import type { Deleted } from "../commands.ts";
import type { Context } from "../context.ts";
import type { OperationKind, Vm } from "../model.ts";
import { conflict } from "../names.ts";
import { newOperation, refuseBusy } from "../operations/operation.ts";
import type { Performer } from "../operations/perform.ts";
import { clearAllLeftovers } from "../points/leftovers.ts";
import { disksOf, needVm, refuseAdopted, refuseWhileCreating } from "./read.ts";

/** Deletes an own VM, running or not. Its disks stay, detached; so do its collections and points. */
export async function deleteVm(ctx: Context, id: ResourceId): Promise<Deleted> {
  return begin(ctx, id, "vm-delete", (vm) => refuseAdopted(vm, "it is not deleted here"));
}

/** Lets an adopted VM go: every trace of ours is taken out of its QEMU. Its points stay. */
export async function releaseVm(ctx: Context, id: ResourceId): Promise<Deleted> {
  return begin(ctx, id, "vm-release", (vm) => {
    if (vm.control === "own")
      throw conflict(`'${vm.name}' is not an adopted virtual machine.`, "Delete it instead of releasing it.");
  });
}

async function begin(
  ctx: Context,
  id: ResourceId,
  kind: Extract<OperationKind, "vm-delete" | "vm-release">,
  check: (vm: Vm) => void,
): Promise<Deleted> {
  ctx.tasks.admit();
  const operation = await ctx.catalog.transaction(async (tx) => {
    const vm = await tx.resource("vm", idKey(id));
    if (!vm) return null;
    check(vm);
    await refuseBusy(tx, vm.id);
    await refuseWhileCreating(tx, vm);
    const started = newOperation(ctx, kind, vm.id, { before: vm.provisioningState });
    await tx.putResource({ ...vm, provisioningState: "Deleting", desiredPower: "deallocated" });
    await tx.putOperation(started);
    return started;
  });
  if (operation) ctx.perform(operation);
  return operation;
}

const stopDeleting: Performer["fail"] = async (_ctx, tx, operation) => {
  const vm = await tx.resource("vm", idKey(operation.resourceId));
  const { before } = operation.input as { readonly before: Vm["provisioningState"] };
  if (vm) await tx.putResource({ ...vm, provisioningState: before });
};

export const vmDelete: Performer = {
  run: async (ctx, operation, signal) => {
    const vm = await ctx.catalog.read((tx) => needVm(tx, operation.resourceId));
    // Behind the release of a point that has just succeeded: it speaks to the same QEMU.
    await ctx.vmLock.hold(vm.vmUid, signal, async () => {
      // A capture that cannot be undone ends with its QEMU, which must not be kept from ending by it.
      await clearAllLeftovers(ctx, vm.vmUid, signal).catch((error: unknown) => {
        ctx.log.warn({ vm: vm.id, err: error }, "a capture of the deleted virtual machine could not be undone");
      });
      await ctx.machines.deallocate(vm.vmUid);
      await ctx.machines.forget(vm.vmUid);
      if (vm.nvramPath !== null) await ctx.images.remove(vm.nvramPath);
    });
    return async (tx) => {
      for (const { disk } of await disksOf(tx, vm)) await tx.putResource({ ...disk, managedBy: null });
      await tx.deleteResource("vm", idKey(vm.id));
      return null;
    };
  },
  fail: stopDeleting,
};

export const vmRelease: Performer = {
  run: async (ctx, operation, signal) => {
    const { vm, disks, anchors } = await ctx.catalog.read(async (tx) => {
      const vm = await needVm(tx, operation.resourceId);
      const disks = await disksOf(tx, vm);
      const found = await Promise.all(disks.map(({ disk }) => tx.anchor(disk.diskUid)));
      return { vm, disks, anchors: found.filter((anchor) => anchor !== null) };
    });
    await ctx.vmLock.hold(vm.vmUid, signal, async () => {
      await clearAllLeftovers(ctx, vm.vmUid, signal);
      await ctx.machines.release(vm.vmUid, anchors);
    });
    return async (tx) => {
      for (const { disk } of disks) {
        await tx.deleteAnchor(disk.diskUid);
        await tx.deleteResource("disk", idKey(disk.id));
      }
      await tx.deleteResource("vm", idKey(vm.id));
      return null;
    };
  },
  fail: stopDeleting,
};
