/** Names and ids: what may be called how, and taking a resource id apart. */
import { idKey, type ResourceId, StillpointError } from "../base/index.ts";
import type { ResourceGroup } from "./model.ts";
import type { CatalogReads } from "./ports.ts";

export type ResourceType = "disks" | "virtualMachines" | "restorePointCollections";

const MAX_NAME: Readonly<Record<ResourceType | "restorePoints", number>> = {
  disks: 80,
  virtualMachines: 64,
  restorePointCollections: 80,
  restorePoints: 80,
};

/** Azure's rule for names in Microsoft.Compute, without the characters that a path or a shell would read otherwise. */
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/;
const GROUP_NAME = /^[-\w.()]{1,90}$/;

/** Throws InvalidResourceName unless `name` may name such a resource. `target` is the field that gave it. */
export function checkName(type: ResourceType | "restorePoints", name: string, target = "name"): void {
  const max = MAX_NAME[type];
  if (name.length <= max && NAME.test(name) && !name.endsWith(".")) return;
  throw new StillpointError("InvalidResourceName", `'${name.slice(0, 100)}' cannot be a name in ${type}.`, {
    target,
    remedy: `Use 1 to ${max} letters, digits, '_', '-' and '.', beginning with a letter, digit or '_' and not ending with '.'.`,
  });
}

export function checkGroupName(name: string): void {
  if (GROUP_NAME.test(name) && !name.endsWith(".")) return;
  throw new StillpointError("InvalidResourceName", `'${name.slice(0, 100)}' cannot name a resource group.`, {
    target: "name",
    remedy: "Use 1 to 90 letters, digits, '_', '-', '.', '(' and ')', not ending with '.'.",
  });
}

export function nameOf(id: ResourceId): string {
  return id.slice(id.lastIndexOf("/") + 1);
}

export function subscriptionOf(id: ResourceId): string {
  return id.split("/")[2] ?? "";
}

/** `/subscriptions/{s}/resourceGroups/{g}` of anything inside it. */
export function groupIdOf(id: ResourceId): ResourceId {
  return id.split("/").slice(0, 5).join("/") as ResourceId;
}

/** The resource that a child belongs to: the id without its last type and name. */
export function parentOf(id: ResourceId): ResourceId {
  return id.split("/").slice(0, -2).join("/") as ResourceId;
}

/** The name in the id of a new resource. Throws InvalidResourceName when it cannot be one, slashes included. */
export function checkNewId(type: ResourceType | "restorePoints", id: ResourceId, target: string): void {
  const place = type === "restorePoints" ? 10 : 8;
  checkName(type, id.split("/").slice(place).join("/"), target);
}

export function isOfType(id: ResourceId, type: ResourceType): boolean {
  const parts = id.toLowerCase().split("/");
  return parts.length === 9 && parts[6] === "microsoft.compute" && parts[7] === type.toLowerCase() && parts[8] !== "";
}

export function makeId(group: ResourceId, type: ResourceType, name: string): ResourceId {
  return `${group}/providers/Microsoft.Compute/${type}/${name}` as ResourceId;
}

/** The group that is to hold `id`. ResourceGroupNotFound otherwise. */
export async function needGroup(tx: CatalogReads, id: ResourceId): Promise<ResourceGroup> {
  const group = await tx.group(idKey(groupIdOf(id)));
  if (group) return group;
  throw new StillpointError("ResourceGroupNotFound", `The resource group '${nameOf(groupIdOf(id))}' does not exist.`, {
    remedy: "Create it first.",
  });
}

/** The region's name as it is stored. InvalidParameter for another one: a site serves one region. */
export function checkLocation(location: string, region: string): string {
  const normal = location.toLowerCase().replaceAll(" ", "");
  if (normal === region) return region;
  throw new StillpointError("InvalidParameter", `This site serves the location '${region}', not '${location}'.`, {
    target: "location",
    remedy: `Use --location ${region}.`,
  });
}

export function notFound(what: string, id: ResourceId, target?: string): StillpointError {
  const message = `The ${what} '${nameOf(id)}' in the resource group '${nameOf(groupIdOf(id))}' does not exist.`;
  return new StillpointError("ResourceNotFound", message, target === undefined ? {} : { target });
}

export function conflict(message: string, remedy?: string): StillpointError {
  return new StillpointError("Conflict", message, remedy === undefined ? {} : { remedy });
}
