import { idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { Accepted, Deleted, Domain } from "../commands.ts";
import { type Context, timestamp } from "../context.ts";
import type { Seal } from "../journal/writer.ts";
import type { RestorePoint, RestorePointCollection, Tags } from "../model.ts";
import { checkLocation, checkNewId, conflict, isOfType, nameOf, needGroup, notFound } from "../names.ts";
import { newOperation } from "../operations/operation.ts";
import type { Performer } from "../operations/perform.ts";
import { everyPage } from "../paging.ts";
import type { CatalogReads, CatalogTx } from "../ports.ts";
import { abandonCapture, markDeleting, refuseInUse, revertDeleting, untilWritten } from "./remove.ts";

type CollectionPut = Parameters<Domain["putCollection"]>[0];

/** Creates a collection for one VM, or changes its tags. Durable in the journal when it returns. */
export async function putCollection(ctx: Context, command: CollectionPut): Promise<Accepted<RestorePointCollection>> {
  checkNewId("restorePointCollections", command.id, "restorePointCollectionName");
  const location = checkLocation(command.location, ctx.settings.region);
  return ctx.writer.append(async (tx, seal) => {
    await needGroup(tx, command.id);
    const existing = await tx.resource("collection", idKey(command.id));
    const next = existing ? retagged(existing, command) : await created(ctx, tx, command, location);
    if (next !== existing) await store(tx, seal, next);
    return { resource: next, operation: null, created: existing === null };
  });
}

export async function updateCollectionTags(ctx: Context, id: ResourceId, tags: Tags): Promise<RestorePointCollection> {
  return ctx.writer.append(async (tx, seal) => {
    const existing = await needCollection(tx, id);
    refuseDeleting(existing);
    const next = { ...existing, tags };
    await store(tx, seal, next);
    return next;
  });
}

async function store(tx: CatalogTx, seal: Seal, collection: RestorePointCollection): Promise<void> {
  await tx.putResource(collection);
  await seal("collection-put", { collection, group: await needGroup(tx, collection.id) });
}

async function created(
  ctx: Context,
  tx: CatalogReads,
  command: CollectionPut,
  location: string,
): Promise<RestorePointCollection> {
  if (!isOfType(command.sourceId, "virtualMachines"))
    throw new StillpointError("InvalidParameter", `'${command.sourceId}' is not a virtual machine.`, {
      target: "properties.source.id",
      remedy: "Give the id of a virtual machine: /subscriptions/…/providers/Microsoft.Compute/virtualMachines/{name}.",
    });
  const vm = await tx.resource("vm", idKey(command.sourceId));
  if (!vm) throw notFound("virtual machine", command.sourceId, "properties.source.id");
  return {
    kind: "collection",
    id: command.id,
    name: nameOf(command.id),
    location,
    tags: command.tags,
    provisioningState: "Succeeded",
    timeCreated: timestamp(ctx.clock),
    uid: ctx.random.uuid(),
    source: { id: vm.id, location: vm.location },
  };
}

/** Only tags may be changed. The same object when nothing is. */
function retagged(existing: RestorePointCollection, command: CollectionPut): RestorePointCollection {
  refuseDeleting(existing);
  if (idKey(existing.source.id) !== idKey(command.sourceId))
    throw new StillpointError(
      "PropertyChangeNotAllowed",
      `The collection '${existing.name}' belongs to the virtual machine '${nameOf(existing.source.id)}'.`,
      {
        target: "properties.source.id",
        remedy: "Only tags can be changed; make another collection for another source.",
      },
    );
  return sameTags(existing.tags, command.tags) ? existing : { ...existing, tags: command.tags };
}

export function sameTags(a: Tags, b: Tags): boolean {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => Object.hasOwn(b, name) && a[name] === b[name]);
}

function refuseDeleting(collection: RestorePointCollection): void {
  if (collection.provisioningState === "Deleting")
    throw conflict(`The restore point collection '${collection.name}' is being deleted.`);
}

export async function needCollection(tx: CatalogReads, id: ResourceId): Promise<RestorePointCollection> {
  const collection = await tx.resource("collection", idKey(id));
  if (!collection) throw notFound("restore point collection", id);
  return collection;
}

/** Deletes a collection with all its points, or nothing: Conflict when one of them is in use. */
export async function deleteCollection(ctx: Context, id: ResourceId): Promise<Deleted> {
  ctx.writer.check();
  ctx.tasks.admit();
  const decided = await ctx.catalog.transaction(async (tx): Promise<Deleted> => {
    const collection = await tx.resource("collection", idKey(id));
    if (!collection) return null;
    if (collection.provisioningState === "Deleting") return (await tx.openOperationsOf(idKey(id)))[0] ?? "done";
    const points = await allPoints(tx, id);
    await refuseInUse(tx, points);
    for (const point of points) if (point.state !== "Failed") await markDeleting(ctx, tx, point);
    const operation = newOperation(ctx, "collection-delete", collection.id, null);
    await tx.putResource({ ...collection, provisioningState: "Deleting" });
    await tx.putOperation(operation);
    return operation;
  });
  if (decided !== null && decided !== "done") ctx.perform(decided);
  return decided;
}

/** A VM's limit bounds the points of its collections; failed ones come on top, read page by page. */
async function allPoints(tx: CatalogReads, collection: ResourceId): Promise<readonly RestorePoint[]> {
  return everyPage((page) => tx.points(idKey(collection), page));
}

export const collectionDelete: Performer = {
  run: async (ctx, { resourceId }, signal) => {
    const points = await ctx.catalog.read((tx) => allPoints(tx, resourceId));
    for (const point of points)
      if (point.state === "Deleting" && point.manifest === null) await abandonCapture(ctx, point, signal);
    await untilWritten(ctx, signal, () =>
      ctx.writer.append(async (tx, seal) => {
        const collection = await tx.resource("collection", idKey(resourceId));
        if (collection?.provisioningState !== "Deleting") return;
        for (const point of await allPoints(tx, resourceId)) await tx.deletePoint(idKey(point.id));
        await tx.deleteResource("collection", idKey(resourceId));
        await seal("collection-delete", { collectionId: collection.id });
      }),
    );
    return async () => null;
  },
  fail: async (ctx, tx, { resourceId }, error) => {
    const collection = await tx.resource("collection", idKey(resourceId));
    if (!collection) return;
    await tx.putResource({ ...collection, provisioningState: "Succeeded" });
    for (const point of await allPoints(tx, resourceId))
      if (point.state === "Deleting") await revertDeleting(ctx, tx, point, error);
  },
};
