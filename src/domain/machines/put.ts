import { idKey, type VmUid } from "../../base/index.ts";
import type { Accepted, VmPut } from "../commands.ts";
import { type Context, timestamp } from "../context.ts";
import type { AttachedDisk, Disk, Vm } from "../model.ts";
import { checkLocation, checkNewId, conflict, nameOf, needGroup } from "../names.ts";
import { newOperation } from "../operations/operation.ts";
import type { Performer } from "../operations/perform.ts";
import type { CatalogTx } from "../ports.ts";
import { attachments, checkAttachments, needUnattached, sizeOf, targetOf } from "./attachments.ts";
import { completeMachine } from "./config.ts";
import { startMachine } from "./power.ts";
import { draftName, needVm, powerOf, takeDraft } from "./read.ts";
import { changeVm } from "./update.ts";

/** Creates a VM from disks that are there, and starts it; or changes the one that is there. */
export async function putVm(ctx: Context, command: VmPut): Promise<Accepted<Vm>> {
  checkNewId("virtualMachines", command.id, "vmName");
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
