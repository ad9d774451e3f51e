import { idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { Deleted } from "../commands.ts";
import type { Context } from "../context.ts";
import { conflict, nameOf } from "../names.ts";
import { errorFacts, newOperation, refuseBusy } from "../operations/operation.ts";
import type { Performer } from "../operations/perform.ts";
import { needDisk } from "./read.ts";

/** Deletes a disk that nothing uses. A file Stillpoint made goes with it; an imported one stays, and the operation says so. */
export async function deleteDisk(ctx: Context, id: ResourceId): Promise<Deleted> {
  ctx.tasks.admit();
  const operation = await ctx.catalog.transaction(async (tx) => {
    const disk = await tx.resource("disk", idKey(id));
    if (!disk) return null;
    if (disk.managedBy)
      throw new StillpointError(
        "OperationNotAllowed",
        `The disk '${disk.name}' is attached to the virtual machine '${nameOf(disk.managedBy)}'.`,
        { remedy: "Detach it, or delete (release, when it was adopted) the virtual machine first." },
      );
    if (disk.provisioningState === "Creating" || disk.provisioningState === "Updating")
      throw conflict(`The disk '${disk.name}' is in the state ${disk.provisioningState}.`, "Wait for it to end.");
    await refuseBusy(tx, disk.id);
    const started = newOperation(ctx, "disk-delete", disk.id, { disk: disk.diskUid });
    await tx.putResource({ ...disk, provisioningState: "Deleting" });
    await tx.putOperation(started);
    return started;
  });
  if (operation) ctx.perform(operation);
  return operation;
}

export const diskDelete: Performer = {
  run: async (ctx, operation) => {
    const disk = await ctx.catalog.read((tx) => needDisk(tx, operation.resourceId));
    const made = disk.origin === "made";
    if (made && disk.path !== null) await ctx.images.remove(disk.path);
    return async (tx) => {
      await tx.deleteResource("disk", idKey(disk.id));
      await tx.deleteAnchor(disk.diskUid);
      return made ? { fileKept: null } : { fileKept: disk.path };
    };
  },
  fail: async (_ctx, tx, operation, error) => {
    const disk = await tx.resource("disk", idKey(operation.resourceId));
    if (disk) await tx.putResource({ ...disk, provisioningState: "Failed", error: errorFacts(error) });
  },
};
