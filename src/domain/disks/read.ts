import { idKey, type ResourceId } from "../../base/index.ts";
import type { Context } from "../context.ts";
import type { Disk } from "../model.ts";
import { conflict, nameOf, notFound } from "../names.ts";
import type { CatalogReads } from "../ports.ts";

export async function getDisk(ctx: Context, id: ResourceId): Promise<Disk> {
  return ctx.catalog.read((tx) => needDisk(tx, id));
}

export async function needDisk(tx: CatalogReads, id: ResourceId, target?: string): Promise<Disk> {
  const disk = await tx.resource("disk", idKey(id));
  if (!disk) throw notFound("disk", id, target);
  return disk;
}

/** Conflict while the VM that has the disk is being captured: the capture's sizes and anchors stand still. */
export async function refuseWhileCaptured(tx: CatalogReads, disk: Disk): Promise<void> {
  if (!disk.managedBy) return;
  const vm = await tx.resource("vm", idKey(disk.managedBy));
  if (!vm) return;
  const [point] = await tx.creating(vm.vmUid);
  if (point)
    throw conflict(
      `The restore point '${point.name}' of the virtual machine '${nameOf(disk.managedBy)}' is being created.`,
      "Wait for it to end, then try again.",
    );
}
