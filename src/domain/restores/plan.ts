import { type DiskUid, idKey, type ResourceId, StillpointError, type VmUid } from "../../base/index.ts";
import { attachedDisks } from "../attached.ts";
import type { RestoreCommand } from "../commands.ts";
import { type Context, timestamp } from "../context.ts";
import { newMac, serialOf } from "../machines/config.ts";
import type { AttachedDisk, Disk, DiskRestorePoint, MachineConfig, RestorePoint, Vm } from "../model.ts";
import { checkName, conflict, makeId } from "../names.ts";
import type { CatalogReads } from "../ports.ts";

/** One disk to be made: from which disk restore point, as which disk. */
export interface PlannedDisk {
  readonly source: DiskRestorePoint;
  readonly disk: Disk;
}

/** What a restore makes, decided whole before the first byte is written. */
export interface RestorePlan {
  readonly disks: readonly PlannedDisk[];
  readonly vm: Vm | null;
  /** What the new machine does not have of the old one, for the user. */
  readonly notRestored: readonly string[];
}

/** Throws the first rule that the command breaks, naming field and remedy. */
export async function planRestore(
  ctx: Context,
  tx: CatalogReads,
  command: RestoreCommand,
  point: RestorePoint,
): Promise<RestorePlan> {
  if (command.vmName !== null) checkName("virtualMachines", command.vmName, "vmName");
  const sources = chosenDisks(command, point);
  const disks: PlannedDisk[] = [];
  const names = new Set<string>();
  for (const source of sources) {
    const disk = await plannedDisk(ctx, tx, command, source);
    if (names.has(idKey(disk.id)))
      throw new StillpointError("InvalidParameter", `Two disks would be named '${disk.name}'.`, {
        target: "diskNames",
      });
    names.add(idKey(disk.id));
    disks.push({ source, disk });
  }
  if (command.vmName === null) return { disks, vm: null, notRestored: point.record?.notCaptured ?? [] };
  const vm = await plannedVm(ctx, tx, { ...command, vmName: command.vmName }, point, disks);
  const attached = disks.map(({ source, disk }) => ({ source, disk: { ...disk, managedBy: vm.id } }));
  return { disks: attached, vm, notRestored: notRestored(point) };
}

function chosenDisks(command: RestoreCommand, point: RestorePoint): readonly DiskRestorePoint[] {
  const known = new Map(point.disks.map((disk) => [idKey(disk.id), disk]));
  command.onlyDisks.forEach((id, index) => {
    if (!known.has(idKey(id)))
      throw new StillpointError("InvalidParameter", `'${id}' is not a disk restore point of '${point.name}'.`, {
        target: `onlyDisks[${index}]`,
      });
  });
  const sources = new Set(point.disks.map((disk) => idKey(disk.diskId)));
  for (const key of Object.keys(command.diskNames))
    if (!sources.has(idKey(key as ResourceId)))
      throw new StillpointError("InvalidParameter", `The point '${point.name}' does not hold the disk '${key}'.`, {
        target: "diskNames",
        remedy: `It holds: ${point.disks.map((disk) => disk.diskId).join(", ")}.`,
      });
  const only = new Set(command.onlyDisks.map(idKey));
  const chosen = only.size === 0 ? point.disks : point.disks.filter((disk) => only.has(idKey(disk.id)));
  if (command.vmName !== null && chosen.length < point.disks.length)
    throw new StillpointError("InvalidParameter", "A virtual machine is restored with all disks of the point.", {
      target: "onlyDisks",
      remedy: "Leave the list out, or restore single disks without a virtual machine.",
    });
  return chosen;
}

async function plannedDisk(
  ctx: Context,
  tx: CatalogReads,
  command: RestoreCommand,
  source: DiskRestorePoint,
): Promise<Disk> {
  const diskUid = ctx.random.uuid() as DiskUid;
  const given = Object.entries(command.diskNames).find(([key]) => key.toLowerCase() === idKey(source.diskId))?.[1];
  const stem = (command.vmName ?? source.diskName).slice(0, 71);
  const name = given ?? `${stem}-${ctx.random.bytes(4).toString("hex")}`;
  checkName("disks", name, "diskNames");
  const id = makeId(command.targetGroup, "disks", name);
  if (await tx.resource("disk", idKey(id)))
    throw conflict(`The disk '${name}' exists already in the target group.`, "Give another name in diskNames.");
  const sku = source.sku in ctx.settings.skus ? source.sku : ctx.settings.defaultSku;
  return {
    kind: "disk",
    id,
    name,
    location: ctx.settings.region,
    tags: {},
    provisioningState: "Creating",
    timeCreated: timestamp(ctx.clock),
    diskUid,
    sku,
    format: source.format,
    path: ctx.images.newPath(diskUid, sku, source.format),
    sizeBytes: source.sizeBytes,
    rawFileBytes: null,
    origin: "made",
    creation: { createOption: "Restore", sourceResourceId: source.id },
    osType: source.osType,
    hyperVGeneration: source.hyperVGeneration,
    managedBy: null,
    error: null,
  };
}

async function plannedVm(
  ctx: Context,
  tx: CatalogReads,
  command: RestoreCommand & { readonly vmName: string },
  point: RestorePoint,
  disks: readonly PlannedDisk[],
): Promise<Vm> {
  const id = makeId(command.targetGroup, "virtualMachines", command.vmName);
  if (await tx.resource("vm", idKey(id)))
    throw conflict(
      `The virtual machine '${command.vmName}' exists already in the target group.`,
      "Give another vmName.",
    );
  const { source } = point;
  const attached = source ? attachedToNew(source, disks) : [];
  const os = attached.find((entry) => entry.attached.lun === null);
  if (!source || !os)
    throw new StillpointError("InvalidParameter", `The point '${point.name}' holds no OS disk to boot from.`, {
      target: "vmName",
      remedy: "Leave vmName out to restore its disks alone.",
    });
  return {
    ...source,
    id,
    name: command.vmName,
    location: ctx.settings.region,
    provisioningState: "Creating",
    timeCreated: timestamp(ctx.clock),
    vmUid: ctx.random.uuid() as VmUid,
    control: "own",
    osDisk: { ...os.attached, osType: source.osDisk?.osType ?? os.disk.osType ?? "Linux" },
    dataDisks: attached.filter((entry) => entry !== os).map((entry) => entry.attached),
    machine: equalMachine(ctx, command.keepIdentity, source, attached),
    desiredPower: command.start ? "running" : "deallocated",
    adoption: null,
    nvramPath: null,
  };
}

interface NewAttachment {
  readonly disk: Disk;
  readonly attached: AttachedDisk;
  readonly sourceKey: string;
}

function attachedToNew(source: Vm, disks: readonly PlannedDisk[]): readonly NewAttachment[] {
  return attachedDisks(source).flatMap((attached) => {
    const planned = disks.find(({ source: from }) => idKey(from.diskId) === idKey(attached.diskId));
    if (!planned) return [];
    const { disk } = planned;
    return [{ disk, attached: { ...attached, diskId: disk.id, name: disk.name }, sourceKey: idKey(attached.diskId) }];
  });
}

/** The source's machine with the new disks. Identity (MACs, serials) is kept on request only: two of one kind collide. */
function equalMachine(
  ctx: Context,
  keepIdentity: boolean,
  source: Vm,
  attached: readonly NewAttachment[],
): MachineConfig {
  const { machine } = source;
  const disks: Record<string, MachineConfig["disks"][string]> = {};
  for (const { disk, sourceKey, attached: entry } of attached) {
    const before = machine.disks[sourceKey];
    const bootIndex = before?.bootIndex ?? (entry.lun === null ? 1 : null);
    const serial = keepIdentity && before ? before.serial : serialOf(disk);
    const { bus, iothread } = before ?? { bus: "virtio-blk" as const, iothread: false };
    disks[idKey(disk.id)] = { bus, iothread, bootIndex, serial };
  }
  const nics = keepIdentity ? machine.nics : machine.nics.map((nic) => ({ ...nic, mac: newMac(ctx.random) }));
  // The notes are about the adopted source; an own machine is all that its model says.
  return { ...machine, disks, nics, notes: [] };
}

function notRestored(point: RestorePoint): readonly string[] {
  const excluded = point.excludeDisks.map((id) => `the disk ${id}, which was excluded from the point`);
  return [...(point.record?.notCaptured ?? []), ...(point.source?.machine.notes ?? []), ...excluded];
}
