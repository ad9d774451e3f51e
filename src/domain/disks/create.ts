import { type Bytes, bytes, type DiskUid, GiB, idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { Accepted, DiskPut } from "../commands.ts";
import { type Context, timestamp } from "../context.ts";
import type { Disk, DiskFormat } from "../model.ts";
import { checkLocation, checkNewId, conflict, nameOf, needGroup, parentOf } from "../names.ts";
import { errorFacts, newOperation } from "../operations/operation.ts";
import type { Performer } from "../operations/perform.ts";
import { needRestorable } from "../points/read.ts";
import type { CatalogReads, CatalogTx, ImageFacts } from "../ports.ts";
import { checkSize } from "./size.ts";
import { changeExisting } from "./update.ts";

/**
 * Creates a disk (Empty: a new image; Import: a pool file in place; Restore: from a disk restore point), or changes
 * tags and size of the one that is there. An import is done when this returns; the others end with their operation.
 */
export async function putDisk(ctx: Context, command: DiskPut): Promise<Accepted<Disk>> {
  checkNewId("disks", command.id, "diskName");
  checkLocation(command.location, ctx.settings.region);
  ctx.tasks.admit();
  const sku = checkSku(ctx, command.sku);
  const existing = await ctx.catalog.read((tx) => tx.resource("disk", idKey(command.id)));
  if (existing && existing.provisioningState !== "Failed") return changeExisting(ctx, existing, command);
  const imported = command.creation.createOption === "Import" ? await inspectImport(ctx, command) : null;
  const accepted = await ctx.catalog.transaction((tx) => decide(ctx, tx, command, sku, imported));
  if (accepted.operation) ctx.perform(accepted.operation);
  return accepted;
}

function checkSku(ctx: Context, wanted: string | null): string {
  const { skus, defaultSku } = ctx.settings;
  const sku = Object.keys(skus).find((name) => name.toLowerCase() === (wanted ?? defaultSku).toLowerCase());
  if (sku !== undefined) return sku;
  throw new StillpointError("InvalidParameter", `The sku '${wanted}' is not configured here.`, {
    target: "sku.name",
    remedy: `Use one of ${Object.keys(skus).join(", ")}.`,
  });
}

interface Imported extends ImageFacts {
  readonly path: string;
}

async function inspectImport(ctx: Context, command: DiskPut): Promise<Imported> {
  if (command.creation.createOption !== "Import") throw new StillpointError("InternalError", "Not an import.");
  const path = await ctx.images.resolve(command.creation.sourceUri);
  const facts = await ctx.images.inspect(path);
  if (command.sizeBytes !== null && Math.ceil(facts.sizeBytes / GiB) !== Math.ceil(command.sizeBytes / GiB))
    throw new StillpointError("InvalidParameter", `The file holds a disk of ${facts.sizeBytes} bytes.`, {
      target: "properties.diskSizeGB",
      remedy: "Leave the size out; a disk can be grown after its import.",
    });
  if (command.format !== null && command.format !== facts.format)
    throw new StillpointError("InvalidParameter", `The file is ${facts.format}, not ${command.format}.`, {
      remedy: "Leave the format out: the file's extension says it.",
    });
  return { ...facts, path };
}

async function decide(
  ctx: Context,
  tx: CatalogTx,
  command: DiskPut,
  sku: string,
  imported: Imported | null,
): Promise<Accepted<Disk>> {
  await needGroup(tx, command.id);
  const existing = await tx.resource("disk", idKey(command.id));
  if (existing && existing.provisioningState !== "Failed")
    throw conflict(`The disk '${existing.name}' was created at the same moment.`, "Read it, then try again.");
  if (imported) return importDisk(ctx, tx, command, sku, imported);
  const shape = await shapeOf(ctx, tx, command, sku);
  const base = newDisk(ctx, command, sku);
  const disk: Disk = { ...base, ...shape, path: ctx.images.newPath(base.diskUid, sku, shape.format) };
  // A failed attempt's file is not forgotten with its row.
  const stalePath = existing?.origin === "made" ? existing.path : null;
  const operation = newOperation(ctx, "disk-create", disk.id, { stalePath });
  await tx.putResource(disk);
  await tx.putOperation(operation);
  if (command.creation.createOption === "Restore") {
    const source = await needRestorable(ctx, tx, parentOf(command.creation.sourceResourceId));
    await tx.pin(source.uid, operation.id);
  }
  return { resource: disk, operation, created: true };
}

async function importDisk(
  ctx: Context,
  tx: CatalogTx,
  command: DiskPut,
  sku: string,
  { path, ...facts }: Imported,
): Promise<Accepted<Disk>> {
  const other = await tx.diskByPath(path);
  if (other)
    throw conflict(
      `The file is the disk '${other.id}' already.`,
      "One file is one disk: use that one, or delete it first (its file stays).",
    );
  const disk: Disk = {
    ...newDisk(ctx, command, sku),
    ...facts,
    path,
    origin: "imported",
    provisioningState: "Succeeded",
  };
  await tx.putResource(disk);
  return { resource: disk, operation: null, created: true };
}

function newDisk(ctx: Context, command: DiskPut, sku: string): Disk {
  return {
    kind: "disk",
    id: command.id,
    name: nameOf(command.id),
    location: ctx.settings.region,
    tags: command.tags,
    provisioningState: "Creating",
    timeCreated: timestamp(ctx.clock),
    diskUid: ctx.random.uuid() as DiskUid,
    sku,
    format: "qcow2",
    path: null,
    sizeBytes: bytes(0),
    rawFileBytes: null,
    origin: "made",
    creation: command.creation,
    osType: command.osType,
    hyperVGeneration: command.hyperVGeneration,
    managedBy: null,
    error: null,
  };
}

interface Shape {
  readonly format: DiskFormat;
  readonly sizeBytes: Bytes;
  readonly osType: Disk["osType"];
  readonly hyperVGeneration: Disk["hyperVGeneration"];
}

async function shapeOf(ctx: Context, tx: CatalogReads, command: DiskPut, sku: string): Promise<Shape> {
  const format = command.format ?? ctx.settings.skus[sku]?.format ?? "qcow2";
  const { osType, hyperVGeneration } = command;
  if (command.creation.createOption !== "Restore")
    return { format, sizeBytes: checkSize(command.sizeBytes), osType, hyperVGeneration };
  const source = await restoreSource(ctx, tx, command.creation.sourceResourceId);
  return {
    format,
    sizeBytes: sizeForRestore(source.sizeBytes, command.sizeBytes),
    osType: osType ?? source.osType,
    hyperVGeneration: hyperVGeneration ?? source.hyperVGeneration,
  };
}

/** The disk restore point behind an id, of a point that can be restored. */
async function restoreSource(ctx: Context, tx: CatalogReads, id: ResourceId) {
  const target = "properties.creationData.sourceResourceId";
  if (!/\/restorepoints\/[^/]+\/diskrestorepoints\/[^/]+$/i.test(id))
    throw new StillpointError("InvalidParameter", `'${id}' is not a disk restore point.`, { target });
  const point = await needRestorable(ctx, tx, parentOf(id));
  const source = point.disks.find((disk) => disk.name.toLowerCase() === nameOf(id).toLowerCase());
  if (source) return source;
  throw new StillpointError("ResourceNotFound", `The restore point '${point.name}' has no disk '${nameOf(id)}'.`, {
    target,
  });
}

function sizeForRestore(sourceBytes: Bytes, wanted: Bytes | null): Bytes {
  // Sizes on the wire are whole GiB: the source's own size, rounded up, means the source's size.
  if (wanted === null || wanted === Math.ceil(sourceBytes / GiB) * GiB) return sourceBytes;
  if (wanted >= sourceBytes) return checkSize(wanted);
  throw new StillpointError("InvalidParameter", `The restore point holds ${sourceBytes} bytes, more than ${wanted}.`, {
    target: "properties.diskSizeGB",
    remedy: "Leave the size out, or ask for a larger one.",
  });
}

export const diskCreate: Performer = {
  run: async (ctx, operation, signal) => {
    const disk = await ctx.catalog.read((tx) => tx.resource("disk", idKey(operation.resourceId)));
    if (!disk || disk.path === null) throw new StillpointError("ResourceNotFound", "The disk is not there any more.");
    const { path, format, sizeBytes, creation } = disk;
    const { stalePath } = operation.input as { readonly stalePath: string | null };
    if (stalePath !== null) await ctx.images.remove(stalePath);
    if (creation.createOption === "Restore") {
      const source = await ctx.catalog.read((tx) => restoreSource(ctx, tx, creation.sourceResourceId));
      // What an earlier life made under the final name is whole, but cheaper to write again than to prove.
      await ctx.images.remove(path);
      const progress = (fraction: number) => ctx.progress.set(operation.id, Math.floor(fraction * 99));
      await ctx.restores.restoreDisk(source, { path, format, sizeBytes }, progress, signal);
    } else await ctx.images.createEmpty(path, format, sizeBytes);
    return async (tx) => {
      const now = await tx.resource("disk", idKey(disk.id));
      if (now) await tx.putResource({ ...now, provisioningState: "Succeeded" });
      return { disk: disk.id };
    };
  },
  fail: async (_ctx, tx, operation, error) => {
    const disk = await tx.resource("disk", idKey(operation.resourceId));
    if (disk) await tx.putResource({ ...disk, provisioningState: "Failed", error: errorFacts(error) });
  },
};
