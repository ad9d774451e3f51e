import { idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { Accepted, Deleted, Domain, Page, PageOptions } from "../commands.ts";
import type { Context } from "../context.ts";
import type { Resource, ResourceGroup } from "../model.ts";
import { checkGroupName, conflict, nameOf, subscriptionOf } from "../names.ts";
import { pageOf, pageRequest } from "../paging.ts";
import { sameTags } from "../points/collections.ts";
import type { CatalogReads, CatalogTx } from "../ports.ts";

type GroupPut = Parameters<Domain["putGroup"]>[0];

/** Creates a resource group or changes its tags. A group with collections is part of what a rebuild must find again. */
export async function putGroup(ctx: Context, command: GroupPut): Promise<Accepted<ResourceGroup>> {
  checkGroupName(nameOf(command.id));
  const plain = await ctx.catalog.transaction(async (tx) => {
    const decided = await decide(tx, command);
    if (decided.journaled) return null;
    await tx.putGroup(decided.accepted.resource);
    return decided.accepted;
  });
  if (plain) return plain;
  return ctx.writer.append(async (tx, seal) => {
    const { accepted, collection } = await decide(tx, command);
    await tx.putGroup(accepted.resource);
    if (collection) await seal("collection-put", { collection, group: accepted.resource });
    return accepted;
  });
}

async function decide(tx: CatalogReads, command: GroupPut) {
  const existing = await tx.group(idKey(command.id));
  const group = existing ? changed(existing, command) : created(command);
  const [collection] = await tx.resources("collection", `${idKey(group.id)}/`, { after: null, limit: 1 });
  const journaled = collection !== undefined && existing !== null && !sameTags(existing.tags, group.tags);
  const accepted: Accepted<ResourceGroup> = { resource: group, operation: null, created: existing === null };
  return { accepted, collection, journaled };
}

function created(command: GroupPut): ResourceGroup {
  const { id, location, tags } = command;
  return { id, subscriptionId: subscriptionOf(id), name: nameOf(id), location, tags };
}

function changed(existing: ResourceGroup, command: GroupPut): ResourceGroup {
  if (existing.location.toLowerCase() !== command.location.toLowerCase())
    throw new StillpointError(
      "PropertyChangeNotAllowed",
      `The group '${existing.name}' is in '${existing.location}'.`,
      {
        target: "location",
        remedy: "The location of a resource group cannot be changed.",
      },
    );
  return { ...existing, tags: command.tags };
}

export async function getGroup(ctx: Context, id: ResourceId): Promise<ResourceGroup> {
  const group = await ctx.catalog.read((tx) => tx.group(idKey(id)));
  if (group) return group;
  throw new StillpointError("ResourceGroupNotFound", `The resource group '${nameOf(id)}' does not exist.`);
}

export async function listGroups(ctx: Context, subscription: string, page: PageOptions): Promise<Page<ResourceGroup>> {
  const groups = await ctx.catalog.read((tx) => tx.groups(subscription, pageRequest(page)));
  return pageOf(groups, page);
}

/** Resources of that kind in a subscription or a group. ResourceGroupNotFound for a group that is not there. */
export async function listResources<K extends Resource["kind"]>(
  ctx: Context,
  kind: K,
  scope: ResourceId,
  page: PageOptions,
): Promise<Page<Extract<Resource, { kind: K }>>> {
  const isGroup = scope.split("/").length > 3;
  if (isGroup) await getGroup(ctx, scope);
  const rows = await ctx.catalog.read((tx) => tx.resources(kind, `${idKey(scope)}/`, pageRequest(page)));
  return pageOf(rows, page);
}

/** Only an empty group is deleted: nothing in it is ever taken along by surprise. */
export async function deleteGroup(ctx: Context, id: ResourceId): Promise<Deleted> {
  return ctx.catalog.transaction(async (tx) => {
    const group = await tx.group(idKey(id));
    if (!group) return null;
    const left = await contents(tx, group);
    if (left.length > 0)
      throw conflict(
        `The resource group '${group.name}' is not empty: ${left.join(", ")}.`,
        "Delete these first; a group is deleted only when nothing is in it.",
      );
    await tx.deleteGroup(idKey(id));
    return "done";
  });
}

/** Up to five resources of each kind, as the user knows them. */
async function contents(tx: CatalogTx, group: ResourceGroup): Promise<readonly string[]> {
  const few = { after: null, limit: 5 };
  const prefix = `${idKey(group.id)}/`;
  const disks = await tx.resources("disk", prefix, few);
  const vms = await tx.resources("vm", prefix, few);
  const collections = await tx.resources("collection", prefix, few);
  return [
    ...vms.map((vm) => `virtualMachines/${vm.name}`),
    ...disks.map((disk) => `disks/${disk.name}`),
    ...collections.map((collection) => `restorePointCollections/${collection.name}`),
  ];
}
