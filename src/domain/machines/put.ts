import { idKey, type ResourceId, StillpointError, type VmUid } from "../../base/index.ts";
import type { Accepted, VmPut } from "../commands.ts";
import { type Context, timestamp } from "../context.ts";
import { needDisk } from "../disks/read.ts";
import type { AttachedDisk, Disk, Vm } from "../model.ts";
import { checkLocation, checkName, conflict, nameOf, needGroup } from "../names.ts";
import { newOperation, refuseBusy } from "../operations/operation.ts";
import type { Performer } from "../operations/perform.ts";
import type { CatalogTx } from "../ports.ts";
import { completeMachine } from "./config.ts";
import { startMachine } from "./power.ts";
import { draftName, needVm, powerOf, takeDraft } from "./read.ts";
import { changeVm } from "./update.ts";

/** Virtio-scsi's and Azure's largest number of data disks of one VM. */
const MAX_DATA_DISKS = 64;

/** Creates a VM from disks that are there, and starts it; or changes the one that is there. */
export async function putVm(ctx: Context, command: VmPut): Promise<Accepted<Vm>> {
  checkName("virtualMachines", nameOf(command.id), "vmName");
  checkLocation(command.location, ctx.settings.region);
  checkAttachments(command);
  ctx.tasks.admit();
  const existing = await ctx.catalog.read((tx) => tx.resource("vm", idKey(command.id)));
  const power = existing ? (await powerOf(ctx, existing)).power : "deallocated";
  const accepted = await ctx.catalog.transaction(async (tx): Promise<Accepted<Vm>> => {
    await needGroup(tx, command.id);
    const vm = await tx.resource("vm", idKey(command.id));
    if (vm?.vmUid !== existing?.vmUid)
      throw conflict(
        `The virtual machine '${nameOf(command.id)}' changed at the same moment.`,
        "Read it and try again.",
      );
    return vm ? changeVm(ctx, tx, vm, command, power) : create(ctx, tx, command);
  });
  if (accepted.operation) ctx.perform(accepted.operation);
  return accepted;
}

function checkAttachments(command: VmPut): void {
  const target = "properties.storageProfile.dataDisks";
  if (command.dataDisks.length > MAX_DATA_DISKS)
    throw new StillpointError("InvalidParameter", `A virtual machine has at most ${MAX_DATA_DISKS} data disks.`, {
      target,
    });
  const seen = new Set<string>([idKey(command.osDisk.diskId)]);
  const luns = new Set<number>();
  command.dataDisks.forEach(({ diskId, lun }, index) => {
    if (seen.has(idKey(diskId)))
      throw new StillpointError("InvalidParameter", `The disk '${nameOf(diskId)}' is named twice.`, {
        target: `${target}[${index}].managedDisk.id`,
      });
    if (!Number.isInteger(lun) || lun < 0 || lun >= MAX_DATA_DISKS || luns.has(lun))
      throw new StillpointError(
        "InvalidParameter",
        `The lun ${lun} is taken, or not within 0 to ${MAX_DATA_DISKS - 1}.`,
        {
          target: `${target}[${index}].lun`,
        },
      );
    seen.add(idKey(diskId));
    luns.add(lun);
  });
}

export function sizeOf(
  ctx: Context,
  vmSize: string,
): { readonly name: string; readonly vcpus: number; readonly memoryMiB: number } {
  for (const [name, size] of Object.entries(ctx.settings.sizes))
    if (name.toLowerCase() === vmSize.toLowerCase()) return { name, ...size };
  throw new StillpointError("InvalidParameter", `The size '${vmSize}' is not configured here.`, {
    target: "properties.hardwareProfile.vmSize",
    remedy: `Use one of ${Object.keys(ctx.settings.sizes).join(", ")}.`,
  });
}

async function create(ctx: Context, tx: CatalogTx, command: VmPut): Promise<Accepted<Vm>> {
  const size = sizeOf(ctx, command.vmSize);
  const { osDisk, dataDisks } = attachments(command);
  const attached: { disk: Disk; attached: AttachedDisk }[] = [];
  for (const entry of [osDisk, ...dataDisks])
    attached.push({ disk: await needUnattached(tx, entry.diskId, targetOf(entry)), attached: entry });
  const machine = completeMachine(await takeDraft(tx, command.id), attached, ctx.random);
  const vm: Vm = {
    kind: "vm",
    id: command.id,
    name: nameOf(command.id),
    location: ctx.settings.region,
    tags: command.tags,
    provisioningState: "Creating",
    timeCreated: timestamp(ctx.clock),
    vmUid: ctx.random.uuid() as VmUid,
    control: "own",
    vmSize: size.name,
    vcpus: size.vcpus,
    memoryMiB: size.memoryMiB,
    osDisk: { ...osDisk, osType: command.osDisk.osType },
    dataDisks,
    machine,
    desiredPower: "running",
    adoption: null,
    nvramPath: null,
    extras: command.extras,
  };
  for (const { disk } of attached) await tx.putResource({ ...disk, managedBy: vm.id });
  await tx.putSetting(draftName(vm.id), null);
  await tx.putResource(vm);
  const operation = newOperation(ctx, "vm-put", vm.id, null);
  await tx.putOperation(operation);
  return { resource: vm, operation, created: true };
}

export function attachments(command: VmPut): {
  readonly osDisk: AttachedDisk;
  readonly dataDisks: readonly AttachedDisk[];
} {
  const { diskId, name, caching } = command.osDisk;
  const dataDisks = command.dataDisks.map((disk) => ({ ...disk, name: disk.name ?? nameOf(disk.diskId) }));
  return {
    osDisk: { diskId, name: name ?? nameOf(diskId), lun: null, caching },
    dataDisks: dataDisks.toSorted((a, b) => a.lun - b.lun),
  };
}

export function targetOf(disk: AttachedDisk): string {
  return `properties.storageProfile.${disk.lun === null ? "osDisk" : "dataDisks"}.managedDisk.id`;
}

/** A disk that may be attached: Succeeded, nobody's, and not an adopted VM's. */
export async function needUnattached(tx: CatalogTx, id: ResourceId, target: string): Promise<Disk> {
  const disk = await needDisk(tx, id, target);
  if (disk.managedBy)
    throw new StillpointError(
      "AttachDiskWhileBeingDetached",
      `The disk '${disk.name}' is attached to the virtual machine '${nameOf(disk.managedBy)}'.`,
      { target, remedy: "Detach it there first." },
    );
  if (disk.provisioningState !== "Succeeded")
    throw conflict(`The disk '${disk.name}' is in the state ${disk.provisioningState}.`, "Wait for it to end.");
  await refuseBusy(tx, disk.id);
  return disk;
}

export const vmPut: Performer = {
  run: async (ctx, operation) => {
    await startMachine(ctx, operation.resourceId);
    return async (tx) => {
      await tx.putResource({ ...(await needVm(tx, operation.resourceId)), provisioningState: "Succeeded" });
      return null;
    };
  },
  fail: async (_ctx, tx, operation) => {
    const vm = await tx.resource("vm", idKey(operation.resourceId));
    if (vm) await tx.putResource({ ...vm, provisioningState: "Failed" });
  },
};
