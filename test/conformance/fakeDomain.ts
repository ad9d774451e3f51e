/**
 * A domain in memory for tests of the wire: it keeps what it is given, records every command that would change
 * something, and decides nothing. Operations end when the test says so.
 */
import {
  bytes,
  type DiskUid,
  type ErrorCode,
  GiB,
  idKey,
  type OperationId,
  type PointUid,
  type ResourceId,
  StillpointError,
  type VmUid,
} from "../../src/base/index.ts";
import type {
  Deleted,
  Disk,
  Domain,
  MachineConfig,
  Operation,
  OperationKind,
  Page,
  PageOptions,
  ResourceGroup,
  RestorePoint,
  RestorePointCollection,
  Vm,
} from "../../src/domain/index.ts";
import { finishedPoint, NOW } from "./fakePoint.ts";

const uuid = (n: number) => `00000000-0000-4000-8000-${n.toString(16).padStart(12, "0")}`;

const MACHINE: MachineConfig = {
  machineType: "q35",
  cpuModel: "default",
  firmware: "bios",
  disks: {},
  nics: [],
  notes: [],
};

export interface FakeDomain extends Domain {
  /** Every command that would have changed something, by name. */
  readonly calls: { readonly name: string; readonly argument: unknown }[];
  readonly points: Map<string, RestorePoint>;
  readonly operations: Map<string, Operation>;
  /** Ends an operation (and the point it makes). */
  finish(id: OperationId, error?: { readonly code: ErrorCode; readonly message: string }, output?: unknown): void;
}

function page<T extends { readonly id: ResourceId }>(
  items: Iterable<T>,
  prefix: string,
  options: PageOptions,
): Page<T> {
  const rows = [...items]
    .filter((item) => idKey(item.id).startsWith(`${prefix.toLowerCase()}/`))
    .sort((a, b) => (idKey(a.id) < idKey(b.id) ? -1 : 1))
    .filter((item) => options.after === null || idKey(item.id) > options.after);
  const value = rows.slice(0, options.limit);
  const last = value.at(-1);
  return { value, next: rows.length > value.length && last ? idKey(last.id) : null };
}

function found<T>(map: ReadonlyMap<string, T>, id: ResourceId): T {
  const value = map.get(idKey(id));
  if (value === undefined) throw new StillpointError("ResourceNotFound", `The Resource '${id}' was not found.`);
  return value;
}

/** `finishAfterPolls`: operations end by themselves when they have been looked at so often. */
export function fakeDomain({ finishAfterPolls = Number.POSITIVE_INFINITY } = {}): FakeDomain {
  const polls = new Map<string, number>();
  const groups = new Map<string, ResourceGroup>();
  const disks = new Map<string, Disk>();
  const vms = new Map<string, Vm>();
  const collections = new Map<string, RestorePointCollection>();
  const points = new Map<string, RestorePoint>();
  const operations = new Map<string, Operation>();
  const calls: { name: string; argument: unknown }[] = [];
  let serial = 0;
  const note = (name: string, argument: unknown) => calls.push({ name, argument });
  const begin = (kind: OperationKind, resourceId: ResourceId): Operation => {
    const operation: Operation = {
      id: uuid(++serial) as OperationId,
      kind,
      subscriptionId: resourceId.split("/")[2] ?? "",
      location: "local",
      resourceId,
      status: "InProgress",
      startTime: NOW,
      endTime: null,
      percent: 12.5,
      input: null,
      output: null,
      error: null,
    };
    operations.set(operation.id, operation);
    return operation;
  };
  const tracked = (id: ResourceId, location: string, tags: Vm["tags"], provisioningState: Vm["provisioningState"]) => ({
    id,
    name: id.split("/").at(-1) ?? "",
    location,
    tags,
    provisioningState,
    timeCreated: NOW,
  });
  const remove = (map: Map<string, unknown>, kind: OperationKind, id: ResourceId): Deleted => {
    note(kind, id);
    return map.delete(idKey(id)) ? begin(kind, id) : null;
  };
  const vmOf = (id: ResourceId, location: string, tags: Vm["tags"], extra: Partial<Vm>): Vm => ({
    ...tracked(id, location, tags, "Creating"),
    kind: "vm",
    vmUid: uuid(++serial) as VmUid,
    control: "own",
    vmSize: "Standard_B1s",
    vcpus: 1,
    memoryMiB: 1024,
    osDisk: null,
    dataDisks: [],
    machine: MACHINE,
    desiredPower: "running",
    adoption: null,
    nvramPath: null,
    extras: {},
    ...extra,
  });

  return {
    calls,
    points,
    operations,
    finish(id, error, output) {
      const operation = operations.get(id);
      if (!operation) throw new Error(`no operation ${id}`);
      const status = error ? "Failed" : "Succeeded";
      operations.set(id, {
        ...operation,
        status,
        endTime: NOW,
        percent: 100,
        error: error ?? null,
        output: output ?? null,
      });
      const point = points.get(idKey(operation.resourceId));
      if (point && operation.kind === "point-create")
        points.set(
          idKey(point.id),
          finishedPoint(point, error ?? null, () => uuid(++serial)),
        );
    },
    recover: async () => {},
    close: async () => {},
    async putGroup(group) {
      note("putGroup", group);
      const created = !groups.has(idKey(group.id));
      const [, , subscriptionId = "", , name = ""] = group.id.split("/");
      const resource = { ...group, subscriptionId, name };
      groups.set(idKey(group.id), resource);
      return { resource, operation: null, created };
    },
    getGroup: async (id) => found(groups, id),
    listGroups: async (subscriptionId, options) => page(groups.values(), `/subscriptions/${subscriptionId}`, options),
    async deleteGroup(id) {
      return remove(groups, "group-delete", id);
    },
    listSubscriptions: async () => [...new Set([...groups.values()].map((group) => group.subscriptionId))],
    async putDisk(command) {
      note("putDisk", command);
      const created = !disks.has(idKey(command.id));
      const resource: Disk = {
        ...tracked(command.id, command.location, command.tags, "Updating"),
        kind: "disk",
        diskUid: uuid(++serial) as DiskUid,
        sku: command.sku ?? "Standard_LRS",
        format: "qcow2",
        path: null,
        sizeBytes: command.sizeBytes ?? bytes(GiB),
        rawFileBytes: null,
        origin: "made",
        creation: command.creation,
        osType: command.osType,
        hyperVGeneration: command.hyperVGeneration,
        managedBy: null,
        error: null,
      };
      disks.set(idKey(command.id), resource);
      return { resource, operation: begin("disk-create", command.id), created };
    },
    async updateDisk(id, change) {
      note("updateDisk", change);
      const disk = found(disks, id);
      const resource = { ...disk, tags: change.tags ?? disk.tags, sizeBytes: change.sizeBytes ?? disk.sizeBytes };
      disks.set(idKey(id), resource);
      return { resource, operation: change.sizeBytes === null ? null : begin("disk-update", id), created: false };
    },
    getDisk: async (id) => found(disks, id),
    listDisks: async (scope, options) => page(disks.values(), scope, options),
    async deleteDisk(id) {
      return remove(disks, "disk-delete", id);
    },
    async putVm(command) {
      note("putVm", command);
      const created = !vms.has(idKey(command.id));
      const attached = (disk: {
        diskId: ResourceId;
        name: string | null;
        caching: "None" | "ReadOnly" | "ReadWrite";
      }) => ({
        ...disk,
        name: disk.name ?? disk.diskId.split("/").at(-1) ?? "",
      });
      const resource = vmOf(command.id, command.location, command.tags, {
        vmSize: command.vmSize,
        osDisk: { ...attached(command.osDisk), lun: null, osType: command.osDisk.osType },
        dataDisks: command.dataDisks.map((disk) => ({ ...attached(disk), lun: disk.lun })),
        extras: command.extras,
      });
      vms.set(idKey(command.id), resource);
      return { resource, operation: begin("vm-put", command.id), created };
    },
    async importVm(command) {
      note("importVm", command);
      const { qmpSocket, qgaSocket } = command;
      const resource = vmOf(command.id, command.location, command.tags, {
        control: "adopted",
        adoption: { qmpSocket, qgaSocket },
      });
      vms.set(idKey(command.id), resource);
      return { resource, operation: begin("vm-import", command.id), created: true };
    },
    async releaseVm(id) {
      return remove(vms, "vm-release", id);
    },
    getVm: async (id) => found(vms, id),
    vmPower: async () => ({ power: "running", reason: null, agent: "connected" }),
    listVms: async (scope, options) => page(vms.values(), scope, options),
    async startVm(id) {
      note("startVm", id);
      return begin("vm-start", found(vms, id).id);
    },
    async powerOffVm(id, skipShutdown) {
      note("powerOffVm", { id, skipShutdown });
      return begin("vm-power-off", found(vms, id).id);
    },
    async deallocateVm(id) {
      note("deallocateVm", id);
      return begin("vm-deallocate", found(vms, id).id);
    },
    async deleteVm(id) {
      return remove(vms, "vm-delete", id);
    },
    getMachine: async (id) => found(vms, id).machine,
    async putMachine(id, machine) {
      note("putMachine", machine);
      const vm = vms.get(idKey(id));
      if (vm) vms.set(idKey(id), { ...vm, machine });
      return machine;
    },
    async putCollection(command) {
      note("putCollection", command);
      const old = collections.get(idKey(command.id));
      const resource: RestorePointCollection = {
        ...tracked(command.id, command.location, command.tags, "Succeeded"),
        kind: "collection",
        uid: old?.uid ?? uuid(++serial),
        source: { id: command.sourceId, location: command.location },
      };
      collections.set(idKey(command.id), resource);
      return { resource, operation: null, created: !old };
    },
    async updateCollectionTags(id, tags) {
      note("updateCollectionTags", tags);
      const resource = { ...found(collections, id), tags };
      collections.set(idKey(id), resource);
      return resource;
    },
    getCollection: async (id) => found(collections, id),
    listCollections: async (scope, options) => page(collections.values(), scope, options),
    async deleteCollection(id) {
      return remove(collections, "collection-delete", id);
    },
    async createPoint(command) {
      note("createPoint", command);
      const old = points.get(idKey(command.id));
      if (old && old.bodyHash !== command.bodyHash)
        throw new StillpointError("Conflict", "The restore point exists with another body.");
      if (old) return { resource: old, operation: operations.get(old.operationId) ?? null, created: false };
      const collection = found(collections, command.collectionId);
      const vm = found(vms, collection.source.id);
      const operation = begin("point-create", command.id);
      const resource: RestorePoint = {
        kind: "point",
        id: command.id,
        name: command.id.split("/").at(-1) ?? "",
        collectionId: collection.id,
        uid: uuid(++serial) as PointUid,
        vmUid: vm.vmUid,
        vmId: vm.id,
        state: "Creating",
        requestedMode: command.consistencyMode,
        excludeDisks: command.excludeDisks,
        bodyHash: command.bodyHash,
        timeCreated: NOW,
        operationId: operation.id,
        source: vm,
        disks: [],
        nvram: null,
        record: null,
        manifest: null,
        percent: 12.5,
        takenAt: null,
        error: null,
      };
      points.set(idKey(command.id), resource);
      return { resource, operation, created: true };
    },
    getPoint: async (id) => found(points, id),
    listPoints: async (collectionId, options) => page(points.values(), collectionId, options),
    async deletePoint(id) {
      return remove(points, "point-delete", id);
    },
    async abandonPoint(id) {
      if (found(points, id).state === "Succeeded")
        throw new StillpointError("OperationNotAllowed", "The restore point has succeeded.", { remedy: "Delete it." });
      return remove(points, "point-delete", id);
    },
    async getDiskRestorePoint(pointId, name) {
      const point = found(points, pointId);
      const disk = point.disks.find((one) => one.name.toLowerCase() === name.toLowerCase());
      if (!disk) throw new StillpointError("ResourceNotFound", `The disk restore point '${name}' was not found.`);
      return { point, disk };
    },
    async restore(command) {
      note("restore", command);
      return begin("restore", found(points, command.pointId).id);
    },
    async getOperation(id) {
      const operation = operations.get(id);
      if (!operation) throw new StillpointError("NotFound", `There is no operation '${id}'.`);
      const seen = (polls.get(id) ?? 0) + 1;
      polls.set(id, seen);
      if (operation.status === "InProgress" && seen > finishAfterPolls)
        this.finish(id, undefined, { disks: [operation.resourceId], vm: null, notRestored: [] });
      return operations.get(id) ?? operation;
    },
    health: () => ({ readOnly: null, alarms: [] }),
  };
}
