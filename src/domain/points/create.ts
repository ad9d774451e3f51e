import { idKey, type PointUid, type ResourceId, StillpointError } from "../../base/index.ts";
import { attachedDisks } from "../attached.ts";
import type { Accepted, PointCreate } from "../commands.ts";
import { type Context, timestamp } from "../context.ts";
import type { AttachedDisk, Intent, RestorePoint, RestorePointCollection, Vm } from "../model.ts";
import { checkNewId, conflict, nameOf, notFound } from "../names.ts";
import { newOperation, refuseBusy } from "../operations/operation.ts";
import type { CatalogReads, CatalogTx } from "../ports.ts";
import { startCapture } from "./capture.ts";

/**
 * Accepts a restore point: point (Creating), operation and intent are durable when it returns, and the capture is under
 * way. Idempotent by name and body hash, except that a Failed point makes room for a new attempt with any body: its
 * error's remedy is often another consistency mode.
 */
export async function createPoint(ctx: Context, command: PointCreate): Promise<Accepted<RestorePoint>> {
  ctx.writer.check();
  ctx.tasks.admit();
  checkNewId("restorePoints", command.id, "restorePointName");
  const accepted = await ctx.catalog.transaction((tx) => decide(ctx, tx, command));
  if (accepted.created) startCapture(ctx, accepted.resource, false);
  return accepted;
}

async function decide(ctx: Context, tx: CatalogTx, command: PointCreate): Promise<Accepted<RestorePoint>> {
  const collection = await tx.resource("collection", idKey(command.collectionId));
  if (!collection) throw notFound("restore point collection", command.collectionId);
  if (collection.provisioningState === "Deleting")
    throw conflict(`The restore point collection '${collection.name}' is being deleted.`);
  const existing = await tx.point(idKey(command.id));
  if (existing && existing.state !== "Failed") return same(tx, existing, command);
  const vm = await sourceVm(tx, collection);
  const included = includedDisks(vm, command.excludeDisks);
  await refuseUnreadyDisks(tx, included);
  await refuseSecondCreation(tx, vm);
  await refuseOverLimit(ctx, tx, vm);
  return write(ctx, tx, command, vm);
}

async function same(tx: CatalogTx, existing: RestorePoint, command: PointCreate): Promise<Accepted<RestorePoint>> {
  if (existing.state === "Deleting") throw conflict(`The restore point '${existing.name}' is being deleted.`);
  if (existing.bodyHash !== command.bodyHash)
    throw conflict(
      `The restore point '${existing.name}' exists already and was asked for with other properties.`,
      "A restore point cannot be changed: choose another name, or delete it first.",
    );
  return { resource: existing, operation: await tx.operation(existing.operationId), created: false };
}

async function sourceVm(tx: CatalogReads, collection: RestorePointCollection): Promise<Vm> {
  const vm = await tx.resource("vm", idKey(collection.source.id));
  if (!vm)
    throw new StillpointError(
      "ResourceNotFound",
      `The virtual machine '${nameOf(collection.source.id)}', source of the collection, does not exist any more.`,
      { remedy: "Its points stay restorable; new ones need the virtual machine." },
    );
  if (vm.provisioningState !== "Succeeded")
    throw conflict(
      `The virtual machine '${vm.name}' is in the state ${vm.provisioningState}.`,
      "A point can be taken when its state is Succeeded.",
    );
  await refuseBusy(tx, vm.id);
  return vm;
}

/** The attached disks without the excluded ones, OS disk first. Every excluded id must be an attached disk. */
function includedDisks(vm: Vm, excludeDisks: readonly ResourceId[]): readonly AttachedDisk[] {
  const attached = attachedDisks(vm);
  const keys = new Set(attached.map((disk) => idKey(disk.diskId)));
  excludeDisks.forEach((id, index) => {
    if (keys.has(idKey(id))) return;
    throw new StillpointError("InvalidParameter", `'${id}' is not a disk of the virtual machine '${vm.name}'.`, {
      target: `properties.excludeDisks[${index}]`,
      remedy: `Its disks are: ${attached.map((disk) => disk.diskId).join(", ")}.`,
    });
  });
  const excluded = new Set(excludeDisks.map(idKey));
  const included = attached.filter((disk) => !excluded.has(idKey(disk.diskId)));
  if (included.length === 0)
    throw new StillpointError("InvalidParameter", "All disks are excluded: the point would hold nothing.", {
      target: "properties.excludeDisks",
      remedy: "Leave at least one disk in.",
    });
  return included;
}

async function refuseUnreadyDisks(tx: CatalogReads, disks: readonly AttachedDisk[]): Promise<void> {
  for (const { diskId } of disks) {
    const disk = await tx.resource("disk", idKey(diskId));
    if (!disk) throw notFound("disk", diskId);
    if (disk.provisioningState !== "Succeeded")
      throw conflict(`The disk '${disk.name}' is in the state ${disk.provisioningState}.`, "Wait for it to end.");
  }
}

async function refuseSecondCreation(tx: CatalogReads, vm: Vm): Promise<void> {
  const [other] = await tx.creating(vm.vmUid);
  if (other)
    throw conflict(
      `The restore point '${other.name}' of the virtual machine '${vm.name}' is still being created.`,
      "Only one point of a virtual machine is created at a time: wait for it, or delete it.",
    );
}

async function refuseOverLimit(ctx: Context, tx: CatalogReads, vm: Vm): Promise<void> {
  const limit = ctx.settings.pointsPerVm;
  if ((await tx.countPoints(vm.vmUid)) < limit) return;
  throw new StillpointError("OperationNotAllowed", `The virtual machine '${vm.name}' has ${limit} restore points.`, {
    remedy: "That is the limit; delete some of them first.",
  });
}

async function write(ctx: Context, tx: CatalogTx, command: PointCreate, vm: Vm): Promise<Accepted<RestorePoint>> {
  const uid = ctx.random.uuid() as PointUid;
  const operation = newOperation(ctx, "point-create", command.id, { point: uid });
  const point: RestorePoint = {
    kind: "point",
    id: command.id,
    name: nameOf(command.id),
    collectionId: command.collectionId,
    uid,
    vmUid: vm.vmUid,
    vmId: vm.id,
    state: "Creating",
    requestedMode: command.consistencyMode,
    excludeDisks: command.excludeDisks,
    bodyHash: command.bodyHash,
    timeCreated: timestamp(ctx.clock),
    operationId: operation.id,
    source: vm,
    disks: [],
    nvram: null,
    record: null,
    manifest: null,
    percent: 0,
    takenAt: null,
    error: null,
  };
  await tx.putPoint(point);
  await tx.putOperation(operation);
  // A mode that cannot be reached needs no capture: the point goes on to Failed without one.
  if (command.consistencyMode !== "ApplicationConsistent") await tx.putIntent(newIntent(point));
  return { resource: point, operation, created: true };
}

/** A capture is one attempt at a point, and so is a point's uid: neither is ever used again. */
function newIntent(point: RestorePoint): Intent {
  const { uid, vmUid, timeCreated } = point;
  return { capture: uid, pointUid: uid, pointKey: idKey(point.id), vmUid, plan: null, createdAt: timeCreated };
}
