/** Rows to fill a catalog with. */
import { randomUUID } from "node:crypto";
import {
  bytes,
  type DiskUid,
  idKey,
  type OperationId,
  type PointUid,
  type ResourceId,
  type VmUid,
} from "../../src/base/index.ts";
import type {
  Disk,
  Intent,
  Operation,
  OperationKind,
  ResourceGroup,
  RestorePoint,
  RestorePointCollection,
  Vm,
} from "../../src/domain/index.ts";

export const sub = (n: number) => `5b1f0000-0000-4000-8000-00000000000${n}`;

export function groupOf(name: string, subscriptionId = sub(1)): ResourceGroup {
  const id = `/subscriptions/${subscriptionId}/resourceGroups/${name}` as ResourceId;
  return { id, subscriptionId, name, location: "local", tags: {} };
}

function tracked(group: string, type: string, name: string) {
  return {
    id: `${groupOf(group).id}/providers/Microsoft.Compute/${type}/${name}` as ResourceId,
    name,
    location: "local",
    tags: {},
    provisioningState: "Succeeded" as const,
    timeCreated: "2026-01-01T00:00:00.000Z",
  };
}

export function diskOf(group: string, name: string, more: Partial<Disk> = {}): Disk {
  const diskUid = randomUUID() as DiskUid;
  return {
    ...tracked(group, "disks", name),
    kind: "disk",
    diskUid,
    sku: "Standard_LRS",
    format: "qcow2",
    path: `/pool/${diskUid}.qcow2`,
    sizeBytes: bytes(1024 ** 3),
    rawFileBytes: null,
    origin: "made",
    creation: { createOption: "Empty" },
    osType: null,
    hyperVGeneration: null,
    managedBy: null,
    error: null,
    ...more,
  };
}

export function vmOf(group: string, name: string): Vm {
  return {
    ...tracked(group, "virtualMachines", name),
    kind: "vm",
    vmUid: randomUUID() as VmUid,
    control: "own",
    vmSize: "Standard_B1s",
    vcpus: 1,
    memoryMiB: 1024,
    osDisk: null,
    dataDisks: [],
    machine: { machineType: "q35", cpuModel: "default", firmware: "bios", disks: {}, nics: [], notes: [] },
    desiredPower: "running",
    adoption: null,
    nvramPath: null,
    extras: {},
  };
}

export function collectionOf(group: string, name: string, source: Vm): RestorePointCollection {
  return {
    ...tracked(group, "restorePointCollections", name),
    kind: "collection",
    uid: randomUUID(),
    source: { id: source.id, location: source.location },
  };
}

export function pointOf(
  collection: RestorePointCollection,
  name: string,
  source: Vm,
  more: Partial<RestorePoint> = {},
): RestorePoint {
  return {
    kind: "point",
    id: `${collection.id}/restorePoints/${name}` as ResourceId,
    name,
    collectionId: collection.id,
    uid: randomUUID() as PointUid,
    vmUid: source.vmUid,
    vmId: source.id,
    state: "Creating",
    requestedMode: null,
    excludeDisks: [],
    bodyHash: "hash",
    timeCreated: "2026-01-01T00:00:00.000Z",
    operationId: randomUUID() as OperationId,
    source,
    disks: [],
    nvram: null,
    record: null,
    manifest: null,
    percent: 0,
    takenAt: null,
    error: null,
    ...more,
  };
}

export function operationOf(kind: OperationKind, resourceId: ResourceId): Operation {
  return {
    id: randomUUID() as OperationId,
    kind,
    subscriptionId: sub(1),
    location: "local",
    resourceId,
    status: "InProgress",
    startTime: "2026-01-01T00:00:00.000Z",
    endTime: null,
    percent: 0,
    input: null,
    output: null,
    error: null,
  };
}

export function intentOf(source: Vm, more: Partial<Intent> = {}): Intent {
  const pointUid = randomUUID() as PointUid;
  return {
    capture: pointUid,
    pointUid,
    pointKey: idKey(`/points/${pointUid}` as ResourceId),
    vmUid: source.vmUid,
    plan: null,
    createdAt: "2026-01-01T00:00:00.000Z",
    ...more,
  };
}
