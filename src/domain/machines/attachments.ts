import { idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { VmPut } from "../commands.ts";
import type { Context } from "../context.ts";
import { needDisk } from "../disks/read.ts";
import type { AttachedDisk, Disk } from "../model.ts";
import { conflict, nameOf } from "../names.ts";
import { refuseBusy } from "../operations/operation.ts";
import type { CatalogReads } from "../ports.ts";

/** Virtio-scsi's and Azure's largest number of data disks of one VM. */
const MAX_DATA_DISKS = 64;

/** Every disk once, every lun once and in range. */
export function checkAttachments(command: VmPut): void {
  const target = "properties.storageProfile.dataDisks";
  if (command.dataDisks.length > MAX_DATA_DISKS)
    throw new StillpointError("InvalidParameter", `A virtual machine has at most ${MAX_DATA_DISKS} data disks.`, {
      target,
    });
  const seen = new Set<string>([idKey(command.osDisk.diskId)]);
  const luns = new Set<number>();
  command.dataDisks.forEach(({ diskId, lun }, index) => {
    if (seen.has(idKey(diskId)))
      throw new StillpointError("InvalidParameter", `The disk '${nameOf(diskId)}' is named twice.`, {
        target: `${target}[${index}].managedDisk.id`,
      });
    if (!Number.isInteger(lun) || lun < 0 || lun >= MAX_DATA_DISKS || luns.has(lun))
      throw new StillpointError(
        "InvalidParameter",
        `The lun ${lun} is taken, or not within 0 to ${MAX_DATA_DISKS - 1}.`,
        {
          target: `${target}[${index}].lun`,
        },
      );
    seen.add(idKey(diskId));
    luns.add(lun);
  });
}

export function sizeOf(
  ctx: Context,
  vmSize: string,
): { readonly name: string; readonly vcpus: number; readonly memoryMiB: number } {
  for (const [name, size] of Object.entries(ctx.settings.sizes))
    if (name.toLowerCase() === vmSize.toLowerCase()) return { name, ...size };
  throw new StillpointError("InvalidParameter", `The size '${vmSize}' is not configured here.`, {
    target: "properties.hardwareProfile.vmSize",
    remedy: `Use one of ${Object.keys(ctx.settings.sizes).join(", ")}.`,
  });
}

export function attachments(command: VmPut): {
  readonly osDisk: AttachedDisk;
  readonly dataDisks: readonly AttachedDisk[];
} {
  const { diskId, name, caching } = command.osDisk;
  const dataDisks = command.dataDisks.map((disk) => ({ ...disk, name: disk.name ?? nameOf(disk.diskId) }));
  return {
    osDisk: { diskId, name: name ?? nameOf(diskId), lun: null, caching },
    dataDisks: dataDisks.toSorted((a, b) => a.lun - b.lun),
  };
}

export function targetOf(disk: AttachedDisk): string {
  return `properties.storageProfile.${disk.lun === null ? "osDisk" : "dataDisks"}.managedDisk.id`;
}

/** A disk that may be attached: Succeeded, nobody's, and not an adopted VM's. */
export async function needUnattached(tx: CatalogReads, id: ResourceId, target: string): Promise<Disk> {
  const disk = await needDisk(tx, id, target);
  if (disk.managedBy)
    throw new StillpointError(
      "AttachDiskWhileBeingDetached",
      `The disk '${disk.name}' is attached to the virtual machine '${nameOf(disk.managedBy)}'.`,
      { target, remedy: "Detach it there first." },
    );
  if (disk.provisioningState !== "Succeeded")
    throw conflict(`The disk '${disk.name}' is in the state ${disk.provisioningState}.`, "Wait for it to end.");
  await refuseBusy(tx, disk.id);
  return disk;
}
