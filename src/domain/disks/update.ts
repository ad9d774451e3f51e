import { type Bytes, GiB, idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { Accepted, DiskPut } from "../commands.ts";
import type { Context } from "../context.ts";
import type { Disk, Tags } from "../model.ts";
import { conflict } from "../names.ts";
import { newOperation, refuseBusy } from "../operations/operation.ts";
import type { Performer } from "../operations/perform.ts";
import type { CatalogTx } from "../ports.ts";
import { needDisk, refuseWhileCaptured } from "./read.ts";
import { checkSize } from "./size.ts";

interface Change {
  readonly tags: Tags | null;
  readonly sizeBytes: Bytes | null;
}

/** A PUT on a disk that is there: the same again, other tags, a larger size; nothing else can be changed. */
export async function changeExisting(ctx: Context, existing: Disk, command: DiskPut): Promise<Accepted<Disk>> {
  const target = "properties.creationData";
  if (!sameCreation(existing, command))
    throw new StillpointError(
      "PropertyChangeNotAllowed",
      `The disk '${existing.name}' exists and was made otherwise.`,
      {
        target,
        remedy: "Delete it first, or choose another name.",
      },
    );
  if (existing.provisioningState === "Creating") {
    const [operation] = await ctx.catalog.read((tx) => tx.openOperationsOf(idKey(existing.id)));
    return { resource: existing, operation: operation ?? null, created: false };
  }
  // On the wire sizes are whole GiB; a disk of odd size put again with its rounded size has not changed.
  const same = command.sizeBytes === null || command.sizeBytes === Math.ceil(existing.sizeBytes / GiB) * GiB;
  return updateDisk(ctx, existing.id, { tags: command.tags, sizeBytes: same ? null : command.sizeBytes });
}

function sameCreation({ creation }: Disk, command: DiskPut): boolean {
  const wanted = command.creation;
  switch (wanted.createOption) {
    case "Empty":
      return creation.createOption === "Empty";
    case "Import":
      return creation.createOption === "Import" && creation.sourceUri === wanted.sourceUri;
    case "Restore":
      return creation.createOption === "Restore" && idKey(creation.sourceResourceId) === idKey(wanted.sourceResourceId);
  }
}

/** Changes tags at once; growth ends with its operation, online when the VM runs. */
export async function updateDisk(ctx: Context, id: ResourceId, change: Change): Promise<Accepted<Disk>> {
  ctx.tasks.admit();
  const accepted = await ctx.catalog.transaction(async (tx): Promise<Accepted<Disk>> => {
    const disk = await needDisk(tx, id);
    if (disk.provisioningState === "Deleting") throw conflict(`The disk '${disk.name}' is being deleted.`);
    const tagged: Disk = change.tags === null ? disk : { ...disk, tags: change.tags };
    if (change.sizeBytes === null || change.sizeBytes === disk.sizeBytes) {
      await tx.putResource(tagged);
      return { resource: tagged, operation: null, created: false };
    }
    return grow(ctx, tx, tagged, change.sizeBytes);
  });
  if (accepted.operation) ctx.perform(accepted.operation);
  return accepted;
}

async function grow(ctx: Context, tx: CatalogTx, disk: Disk, wanted: Bytes): Promise<Accepted<Disk>> {
  const sizeBytes = checkSize(wanted);
  if (sizeBytes < disk.sizeBytes)
    throw new StillpointError("InvalidParameter", `The disk '${disk.name}' has ${disk.sizeBytes} bytes already.`, {
      target: "properties.diskSizeGB",
      remedy: "The size of a disk can only increase.",
    });
  if (disk.origin === "foreign")
    throw conflict(`The disk '${disk.name}' belongs to an adopted virtual machine.`, "Grow it where it is managed.");
  if (disk.provisioningState !== "Succeeded")
    throw conflict(`The disk '${disk.name}' is in the state ${disk.provisioningState}.`);
  await refuseBusy(tx, disk.id);
  if (disk.managedBy) await refuseBusy(tx, disk.managedBy);
  await refuseWhileCaptured(tx, disk);
  const operation = newOperation(ctx, "disk-update", disk.id, { sizeBytes });
  const updating: Disk = { ...disk, provisioningState: "Updating" };
  await tx.putResource(updating);
  await tx.putOperation(operation);
  return { resource: updating, operation, created: false };
}

export const diskUpdate: Performer = {
  run: async (ctx, operation) => {
    const { sizeBytes } = operation.input as { readonly sizeBytes: Bytes };
    const { disk, vm } = await ctx.catalog.read(async (tx) => {
      const disk = await needDisk(tx, operation.resourceId);
      return { disk, vm: disk.managedBy && (await tx.resource("vm", idKey(disk.managedBy))) };
    });
    if (disk.path === null) throw new StillpointError("InternalError", "The disk has no file.");
    const power = vm ? (await ctx.machines.power(vm.vmUid)).power : "deallocated";
    if (power === "unreachable")
      throw new StillpointError("HypervisorUnavailable", "The virtual machine that has the disk does not answer.", {
        remedy: "Try again when it does: growing a file under a running guest would harm it.",
      });
    // Under a QEMU that has the image open, only that QEMU may change it.
    if (vm && power !== "deallocated") await ctx.machines.resizeOnline(vm.vmUid, disk, sizeBytes);
    else await ctx.images.grow(disk.path, disk.format, sizeBytes);
    return async (tx) => {
      const now = await needDisk(tx, disk.id);
      await tx.putResource({ ...now, sizeBytes, rawFileBytes: null, provisioningState: "Succeeded" });
      return { disk: disk.id };
    };
  },
  fail: async (_ctx, tx, operation) => {
    // Growing is done or not done: the disk itself is well, and its operation tells what went wrong.
    const disk = await needDisk(tx, operation.resourceId);
    await tx.putResource({ ...disk, provisioningState: "Succeeded" });
  },
};
