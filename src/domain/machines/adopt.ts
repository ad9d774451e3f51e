import { type DiskUid, idKey, StillpointError, type VmUid } from "../../base/index.ts";
import type { Accepted, VmImport } from "../commands.ts";
import { type Context, timestamp } from "../context.ts";
import type { AttachedDisk, Disk, MachineConfig, Vm } from "../model.ts";
import { checkLocation, checkNewId, conflict, groupIdOf, makeId, nameOf, needGroup } from "../names.ts";
import { newOperation } from "../operations/operation.ts";
import type { Performer } from "../operations/perform.ts";
import type { Adopted, CatalogReads, CatalogTx } from "../ports.ts";
import { serialOf } from "./config.ts";
import { needVm } from "./read.ts";

type AdoptedDisk = Adopted["disks"][number];

/** What an adopted VM has instead of a size from the configuration. */
const ADOPTED_SIZE = "Adopted";

/** Adopts a VM that somebody else's QEMU command line started. Its disks are found over QMP by the operation. */
export async function importVm(ctx: Context, command: VmImport): Promise<Accepted<Vm>> {
  checkNewId("virtualMachines", command.id, "vmName");
  checkLocation(command.location, ctx.settings.region);
  ctx.tasks.admit();
  const accepted = await ctx.catalog.transaction(async (tx) => {
    await needGroup(tx, command.id);
    const existing = await tx.resource("vm", idKey(command.id));
    if (existing) throw conflict(`A virtual machine '${existing.name}' exists already.`, "Choose another name.");
    const vm = newVm(ctx, command);
    const operation = newOperation(ctx, "vm-import", vm.id, { vm: vm.vmUid });
    await tx.putResource(vm);
    await tx.putOperation(operation);
    return { resource: vm, operation, created: true };
  });
  ctx.perform(accepted.operation);
  return accepted;
}

function newVm(ctx: Context, command: VmImport): Vm {
  const { qmpSocket, qgaSocket } = command;
  return {
    kind: "vm",
    id: command.id,
    name: nameOf(command.id),
    location: ctx.settings.region,
    tags: command.tags,
    provisioningState: "Creating",
    timeCreated: timestamp(ctx.clock),
    vmUid: ctx.random.uuid() as VmUid,
    control: "adopted",
    vmSize: ADOPTED_SIZE,
    vcpus: 1,
    memoryMiB: 64,
    osDisk: null,
    dataDisks: [],
    machine: { machineType: "q35", cpuModel: "default", firmware: "bios", disks: {}, nics: [], notes: [] },
    desiredPower: "running",
    adoption: { qmpSocket, qgaSocket },
    nvramPath: null,
    extras: {},
  };
}

export const vmImport: Performer = {
  run: async (ctx, operation) => {
    const vm = await ctx.catalog.read((tx) => needVm(tx, operation.resourceId));
    if (!vm.adoption) throw new StillpointError("InternalError", "An adoption without sockets.");
    const found = await ctx.machines.adopt(vm.vmUid, vm.adoption.qmpSocket, vm.adoption.qgaSocket);
    if (found.disks.length === 0)
      throw new StillpointError("InvalidParameter", "This QEMU has no disks that a point could hold.");
    const disks: AdoptedDisk[] = [];
    for (const disk of found.disks) disks.push({ ...disk, path: await ctx.images.confine(disk.path) });
    return (tx) => register(ctx, tx, vm, { ...found, disks });
  },
  undo: async (ctx, operation) => {
    const vm = await ctx.catalog.read((tx) => needVm(tx, operation.resourceId));
    await ctx.machines.release(vm.vmUid, []);
  },
  fail: async (_ctx, tx, operation) => {
    await tx.deleteResource("vm", idKey(operation.resourceId));
  },
};

async function refuseKnownFiles(tx: CatalogReads, disks: readonly AdoptedDisk[]): Promise<void> {
  for (const { path } of disks) {
    const other = await tx.diskByPath(path);
    if (other) throw conflict(`The file ${path} is the disk '${other.id}' already.`, "Delete that disk first.");
  }
}

async function register(ctx: Context, tx: CatalogTx, vm: Vm, found: Adopted): Promise<unknown> {
  await refuseKnownFiles(tx, found.disks);
  const ordered = osDiskFirst(found.disks);
  const disks: Disk[] = [];
  const attached: AttachedDisk[] = [];
  const machine: Record<string, MachineConfig["disks"][string]> = {};
  for (const [index, entry] of ordered.entries()) {
    const disk = await newDisk(ctx, tx, vm, entry, index);
    await tx.putResource(disk);
    disks.push(disk);
    attached.push({ diskId: disk.id, name: disk.name, lun: index === 0 ? null : index - 1, caching: "None" });
    const { bus, iothread, bootIndex } = entry;
    machine[idKey(disk.id)] = { bus, iothread, bootIndex, serial: entry.serial || serialOf(disk) };
  }
  const [os, ...dataDisks] = attached;
  await tx.putResource({
    ...vm,
    provisioningState: "Succeeded",
    vcpus: found.vcpus,
    memoryMiB: found.memoryMiB,
    osDisk: os ? { ...os, osType: "Linux" } : null,
    dataDisks,
    machine: { ...found.machine, disks: machine },
    nvramPath: found.nvramPath,
  });
  return { disks: disks.map((disk) => disk.id) };
}

/** The disk the firmware boots first; the first one when nothing says. */
function osDiskFirst(disks: readonly AdoptedDisk[]): readonly AdoptedDisk[] {
  const rank = (disk: AdoptedDisk) => disk.bootIndex ?? Number.POSITIVE_INFINITY;
  const os = disks.reduce((best, disk) => (rank(disk) < rank(best) ? disk : best));
  return [os, ...disks.filter((disk) => disk !== os)];
}

async function newDisk(ctx: Context, tx: CatalogReads, vm: Vm, found: AdoptedDisk, index: number): Promise<Disk> {
  const diskUid = ctx.random.uuid() as DiskUid;
  const plain = `${vm.name}-${index === 0 ? "os" : `data${index - 1}`}`;
  const taken = await tx.resource("disk", idKey(makeId(groupIdOf(vm.id), "disks", plain)));
  const name = taken ? `${plain}-${diskUid.slice(0, 8)}` : plain;
  return {
    kind: "disk",
    id: makeId(groupIdOf(vm.id), "disks", name),
    name,
    location: vm.location,
    tags: {},
    provisioningState: "Succeeded",
    timeCreated: timestamp(ctx.clock),
    diskUid,
    sku: ctx.settings.defaultSku,
    format: found.format,
    path: found.path,
    sizeBytes: found.sizeBytes,
    rawFileBytes: null,
    origin: "foreign",
    creation: { createOption: "Attach" },
    osType: index === 0 ? "Linux" : null,
    hyperVGeneration: null,
    managedBy: vm.id,
    error: null,
  };
}
