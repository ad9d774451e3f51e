import { idKey, StillpointError } from "../../base/index.ts";
import { attachedDisks } from "../attached.ts";
import type { Accepted, VmPut } from "../commands.ts";
import type { Context } from "../context.ts";
import type { AttachedDisk, Disk, MachineConfig, Vm } from "../model.ts";
import { conflict } from "../names.ts";
import { newOperation, refuseBusy } from "../operations/operation.ts";
import type { CatalogTx, VmPower } from "../ports.ts";
import { attachments, needUnattached, sizeOf, targetOf } from "./attachments.ts";
import { completeMachine } from "./config.ts";
import { disksOf, refuseAdopted, refuseWhileCreating } from "./read.ts";

/**
 * A PUT on a VM that is there: tags at any time, size and data disks while it is deallocated, nothing else. A VM whose
 * creation failed is started again.
 */
export async function changeVm(
  ctx: Context,
  tx: CatalogTx,
  vm: Vm,
  command: VmPut,
  power: VmPower["power"],
): Promise<Accepted<Vm>> {
  if (vm.provisioningState === "Creating")
    return { resource: vm, operation: (await tx.openOperationsOf(idKey(vm.id)))[0] ?? null, created: false };
  await refuseBusy(tx, vm.id);
  const tagged: Vm = { ...vm, tags: command.tags, extras: command.extras };
  const changed = sameHardware(vm, command) ? tagged : await changeHardware(ctx, tx, tagged, command, power);
  if (vm.provisioningState !== "Failed") {
    await tx.putResource(changed);
    return { resource: changed, operation: null, created: false };
  }
  const restarted: Vm = { ...changed, provisioningState: "Creating", desiredPower: "running" };
  const operation = newOperation(ctx, "vm-put", vm.id, null);
  await tx.putResource(restarted);
  await tx.putOperation(operation);
  return { resource: restarted, operation, created: false };
}

function sameHardware(vm: Vm, command: VmPut): boolean {
  const { osDisk, dataDisks } = attachments(command);
  const line = ({ diskId, lun, caching, name }: AttachedDisk) => `${idKey(diskId)} ${lun} ${caching} ${name}`;
  const lines = (disks: readonly AttachedDisk[]) => disks.map(line).sort().join("\n");
  return (
    vm.vmSize.toLowerCase() === command.vmSize.toLowerCase() &&
    lines(attachedDisks(vm)) === lines([osDisk, ...dataDisks])
  );
}

async function changeHardware(
  ctx: Context,
  tx: CatalogTx,
  vm: Vm,
  command: VmPut,
  power: VmPower["power"],
): Promise<Vm> {
  refuseAdopted(vm, "its size and disks cannot be changed here");
  const { osDisk, dataDisks } = attachments(command);
  if (!vm.osDisk || idKey(vm.osDisk.diskId) !== idKey(osDisk.diskId))
    throw new StillpointError("PropertyChangeNotAllowed", `The OS disk of '${vm.name}' cannot be exchanged.`, {
      target: "properties.storageProfile.osDisk.managedDisk.id",
      remedy: "Create another virtual machine with that disk.",
    });
  if (power !== "deallocated")
    throw conflict(
      `The virtual machine '${vm.name}' is ${power}; its size and disks can be changed only while it is deallocated.`,
      "Deallocate it first.",
    );
  await refuseWhileCreating(tx, vm);
  const size = sizeOf(ctx, command.vmSize);
  const next: Vm = {
    ...vm,
    vmSize: size.name,
    vcpus: size.vcpus,
    memoryMiB: size.memoryMiB,
    osDisk: { ...osDisk, osType: command.osDisk.osType },
    dataDisks,
  };
  await detachMissing(tx, vm, next);
  await attachNew(tx, vm, next);
  const disks = await disksOf(tx, next);
  return {
    ...next,
    machine: completeMachine(
      keepKnown(
        vm.machine,
        disks.map(({ disk }) => disk),
      ),
      disks,
      ctx.random,
    ),
  };
}

async function detachMissing(tx: CatalogTx, before: Vm, after: Vm): Promise<void> {
  const stays = new Set(attachedDisks(after).map((disk) => idKey(disk.diskId)));
  for (const { disk } of await disksOf(tx, before))
    if (!stays.has(idKey(disk.id))) {
      await refuseBusy(tx, disk.id);
      await tx.putResource({ ...disk, managedBy: null });
    }
}

async function attachNew(tx: CatalogTx, before: Vm, after: Vm): Promise<void> {
  const had = new Set(attachedDisks(before).map((disk) => idKey(disk.diskId)));
  for (const attached of attachedDisks(after)) {
    if (had.has(idKey(attached.diskId))) continue;
    const disk = await needUnattached(tx, attached.diskId, targetOf(attached));
    await tx.putResource({ ...disk, managedBy: after.id });
  }
}

/** The machine without the disks that are not attached any more. */
function keepKnown(machine: MachineConfig, disks: readonly Disk[]): MachineConfig {
  const keys = new Set<string>(disks.map((disk) => idKey(disk.id)));
  const kept = Object.entries(machine.disks).filter(([key]) => keys.has(key));
  return { ...machine, disks: Object.fromEntries(kept) };
}
