import { z } from "zod";
import { GiB, idKey, type ResourceId } from "../../base/index.ts";
import type { AttachedDisk, DiskRestorePoint, Domain, PointCreate, RestorePoint } from "../../domain/index.ts";
import { armEnum, armObject, bodyHash, parseBody, readOnly, text, unsupported } from "../arm/body.ts";
import { fill, GROUP, reference } from "../arm/ids.ts";
import { type ArmRequest, accepted, deleted, ok, type Route } from "../arm/routes.ts";
import { armTime } from "../arm/time.ts";
import { pointProvisioningState, type Status } from "./common.ts";

const COLLECTION = `${GROUP}/providers/Microsoft.Compute/restorePointCollections/{collection}`;
export const POINT_TEMPLATE = `${COLLECTION}/restorePoints/{point}`;
/** More disks than any VM has. */
const MAX_EXCLUDED = 256;

const putSchema = armObject({
  properties: armObject({
    excludeDisks: z
      .array(armObject({ id: text(2048) }), { error: "must be a list" })
      .max(MAX_EXCLUDED, { error: `must not name more than ${MAX_EXCLUDED} disks` })
      .optional(),
    consistencyMode: armEnum(["CrashConsistent", "FileSystemConsistent", "ApplicationConsistent"]).optional(),
    sourceRestorePoint: unsupported("copies of restore points are not offered by this version; leave it out"),
    sourceMetadata: unsupported("restore points are encrypted with the platform's key only; leave it out"),
    instantAccessDurationMinutes: unsupported("instant access is not offered by this version; leave it out"),
    provisioningState: readOnly,
    timeCreated: readOnly,
    instanceView: readOnly,
  }).optional(),
  id: readOnly,
  name: readOnly,
  type: readOnly,
});

/** The command, with the hash of what the body means: order, case and repetition of excluded disks are no difference. */
function pointCreate(request: ArmRequest): PointCreate {
  const { properties = {} } = parseBody(putSchema, request.body);
  const byKey = new Map<string, ResourceId>();
  for (const [i, { id }] of (properties.excludeDisks ?? []).entries()) {
    const disk = reference("Microsoft.Compute/disks", id, `properties.excludeDisks[${i}].id`);
    byKey.set(idKey(disk), disk);
  }
  const consistencyMode = properties.consistencyMode ?? null;
  return {
    id: fill(POINT_TEMPLATE, request.parameters),
    collectionId: fill(COLLECTION, request.parameters),
    consistencyMode,
    excludeDisks: [...byKey.values()],
    bodyHash: bodyHash({ consistencyMode, excludeDisks: [...byKey.keys()].sort() }),
  };
}

/** On the wire a restore point has no `type`: Azure's answers have none. */
export function pointBody(point: RestorePoint, version: string, withInstanceView = false): unknown {
  const mode = point.record?.reachedMode ?? point.requestedMode;
  return {
    name: point.name,
    id: point.id,
    properties: {
      ...(point.excludeDisks.length === 0 ? {} : { excludeDisks: point.excludeDisks.map((id) => ({ id })) }),
      ...(point.source === null ? {} : { sourceMetadata: sourceMetadata(point, version) }),
      provisioningState: pointProvisioningState(point.state),
      ...(mode === null ? {} : { consistencyMode: mode }),
      timeCreated: armTime(point.timeCreated),
      ...(withInstanceView ? { instanceView: instanceView(point) } : {}),
    },
  };
}

function sourceMetadata(point: RestorePoint, version: string): unknown {
  const { source } = point;
  if (source === null) return undefined;
  const excluded = new Set(point.excludeDisks.map(idKey));
  const captured = new Map(point.disks.map((disk) => [idKey(disk.diskId), disk]));
  const included = (disk: AttachedDisk) => !excluded.has(idKey(disk.diskId));
  const body = (disk: AttachedDisk) => diskMetadata(disk, captured.get(idKey(disk.diskId)), point, version);
  return {
    hardwareProfile: { vmSize: source.vmSize },
    storageProfile: {
      ...(source.osDisk !== null && included(source.osDisk)
        ? { osDisk: { osType: source.osDisk.osType, ...body(source.osDisk) } }
        : {}),
      dataDisks: source.dataDisks.filter(included).map((disk) => ({ lun: disk.lun, ...body(disk) })),
    },
    ...pick(source.extras, ["osProfile", "diagnosticsProfile", "licenseType", "securityProfile"]),
    ...(version >= "2022-11-01" ? pick(source.extras, ["userData"]) : {}),
    vmId: source.vmUid,
    location: source.location,
    hyperVGeneration: source.machine.firmware === "uefi" ? "V2" : "V1",
  };
}

/** The id of a disk restore point shows only once the point has finished, as Azure does it. */
function diskMetadata(
  disk: AttachedDisk,
  captured: DiskRestorePoint | undefined,
  point: RestorePoint,
  version: string,
) {
  return {
    name: disk.name,
    caching: disk.caching,
    ...(captured ? { diskSizeGB: Math.ceil(captured.sizeBytes / GiB) } : {}),
    managedDisk: { id: disk.diskId, ...(captured ? { storageAccountType: captured.sku } : {}) },
    ...(captured && point.state === "Succeeded"
      ? {
          diskRestorePoint: {
            id: captured.id,
            ...(version >= "2023-03-01" ? { encryption: { type: "EncryptionAtRestWithPlatformKey" } } : {}),
          },
        }
      : {}),
  };
}

function pick(from: Readonly<Record<string, unknown>>, names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]));
}

/** Copying the bytes is what Azure calls replication: its words for how far that is. */
function replication(point: RestorePoint): Status {
  switch (point.state) {
    case "Succeeded":
      return { code: "ReplicationState/succeeded", level: "Info", displayStatus: "Succeeded" };
    case "Failed":
      return {
        code: "ReplicationState/failed",
        level: "Error",
        displayStatus: "Failed",
        ...(point.error ? { message: `${point.error.code}: ${point.error.message}` } : {}),
      };
    default:
      return {
        code: "ReplicationState/inProgress",
        level: "Info",
        displayStatus: "In progress",
        message: `${Math.floor(point.percent)} %`,
      };
  }
}

function instanceView(point: RestorePoint): unknown {
  const status = replication(point);
  const ours = (code: string, level: Status["level"], displayStatus: string, more: Partial<Status> = {}): Status => ({
    code: `Stillpoint/${code}`,
    level,
    displayStatus,
    ...more,
  });
  const completionPercent = point.state === "Succeeded" ? 100 : Math.floor(point.percent);
  return {
    diskRestorePoints: point.disks.map((disk) => ({ id: disk.id, replicationStatus: { status, completionPercent } })),
    statuses: [
      status,
      ...(point.takenAt === null
        ? []
        : [ours("PointInTime/taken", "Info", "Point in time taken", { time: armTime(point.takenAt) })]),
      ...(point.record?.notCaptured ?? []).map((message) =>
        ours("NotCaptured", "Warning", "Not captured", { message }),
      ),
      ...(point.record?.alarms ?? []).map((message) => ours("Alarm", "Warning", "Alarm", { message })),
    ],
  };
}

export function pointRoutes(domain: Domain): Route[] {
  const type = "restorePointCollections/restorePoints";
  const families = ["compute"] as const;
  const idOf = (request: ArmRequest) => fill(POINT_TEMPLATE, request.parameters);
  return [
    {
      method: "GET",
      template: POINT_TEMPLATE,
      type,
      families,
      handle: async (request) => {
        const point = await domain.getPoint(idOf(request));
        return ok(pointBody(point, request.apiVersion, request.query("$expand")?.toLowerCase() === "instanceview"));
      },
    },
    {
      method: "PUT",
      template: POINT_TEMPLATE,
      type,
      families,
      // Always 201: `az` takes nothing else, for the repetition of the same request neither.
      handle: async (request) => {
        const result = await domain.createPoint(pointCreate(request));
        return accepted(result, pointBody(result.resource, request.apiVersion), { done: 201, running: 201 });
      },
    },
    {
      method: "DELETE",
      template: POINT_TEMPLATE,
      type,
      families,
      handle: async (request) => deleted(await domain.deletePoint(idOf(request))),
    },
  ];
}
