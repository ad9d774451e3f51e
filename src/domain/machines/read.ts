import { idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import { attachedDisks } from "../attached.ts";
import type { Context } from "../context.ts";
import type { AttachedDisk, Disk, MachineConfig, Vm } from "../model.ts";
import { conflict, notFound } from "../names.ts";
import { refuseBusy } from "../operations/operation.ts";
import type { CatalogReads, VmPower } from "../ports.ts";
import { checkMachine, completeMachine } from "./config.ts";

export async function needVm(tx: CatalogReads, id: ResourceId): Promise<Vm> {
  const vm = await tx.resource("vm", idKey(id));
  if (!vm) throw notFound("virtual machine", id);
  return vm;
}

export async function disksOf(
  tx: CatalogReads,
  vm: Vm,
): Promise<readonly { readonly disk: Disk; readonly attached: AttachedDisk }[]> {
  const disks: { disk: Disk; attached: AttachedDisk }[] = [];
  for (const attached of attachedDisks(vm)) {
    const disk = await tx.resource("disk", idKey(attached.diskId));
    if (!disk) throw notFound("disk", attached.diskId);
    disks.push({ disk, attached });
  }
  return disks;
}

/** What the hypervisor says now; `unreachable` with the reason when it cannot be asked: unknown is never `off`. */
export async function powerOf(ctx: Context, vm: Vm): Promise<VmPower> {
  try {
    return await ctx.machines.power(vm.vmUid);
  } catch (error) {
    if (!(error instanceof StillpointError)) throw error;
    return { power: "unreachable", reason: error.message, agent: "unknown" };
  }
}

/** Adopted VMs were started by somebody else's command line, and only that can start them again. */
export function refuseAdopted(vm: Vm, what: string): void {
  if (vm.control === "own") return;
  throw new StillpointError("OperationNotAllowed", `'${vm.name}' is an adopted virtual machine: ${what}.`, {
    remedy: "Do it where it was started, or let it go with 'stillpoint vm release'.",
  });
}

export async function refuseWhileCreating(tx: CatalogReads, vm: Vm): Promise<void> {
  const [point] = await tx.creating(vm.vmUid);
  if (point)
    throw conflict(
      `The restore point '${point.name}' of '${vm.name}' is being created.`,
      "Wait for it to end, or delete it.",
    );
}

function draftName(vmId: ResourceId): string {
  return `machine:${idKey(vmId)}`;
}

export async function takeDraft(tx: CatalogReads, vmId: ResourceId): Promise<MachineConfig | null> {
  const text = await tx.setting(draftName(vmId));
  return text === null ? null : (JSON.parse(text) as MachineConfig);
}

export { draftName };

export async function getMachine(ctx: Context, vmId: ResourceId): Promise<MachineConfig> {
  return ctx.catalog.read(async (tx) => {
    const machine = (await tx.resource("vm", idKey(vmId)))?.machine ?? (await takeDraft(tx, vmId));
    if (!machine) throw notFound("virtual machine", vmId);
    return machine;
  });
}

/** Changes the machine of a deallocated VM, or keeps one for a VM that is still to be created. */
export async function putMachine(ctx: Context, vmId: ResourceId, machine: MachineConfig): Promise<MachineConfig> {
  checkMachine(machine);
  const before = await ctx.catalog.read((tx) => tx.resource("vm", idKey(vmId)));
  const power = before ? await powerOf(ctx, before) : null;
  return ctx.catalog.transaction(async (tx) => {
    const vm = await tx.resource("vm", idKey(vmId));
    if (!vm) {
      await tx.putSetting(draftName(vmId), JSON.stringify(machine));
      return machine;
    }
    refuseAdopted(vm, "its machine cannot be changed here");
    if (power?.power !== "deallocated" || vm.vmUid !== before?.vmUid)
      throw conflict(`The virtual machine '${vm.name}' is not deallocated.`, "Deallocate it first.");
    await refuseBusy(tx, vm.id);
    await refuseWhileCreating(tx, vm);
    const complete = completeMachine(machine, await disksOf(tx, vm), ctx.random);
    await tx.putResource({ ...vm, machine: complete });
    return complete;
  });
}
