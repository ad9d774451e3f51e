import { StillpointError } from "../../base/index.ts";
import type { DiskRestorePoint, Domain, RestorePoint } from "../../domain/index.ts";
import { fill } from "../arm/ids.ts";
import { ok, type Route } from "../arm/routes.ts";
import { armTime } from "../arm/time.ts";
import { POINT_TEMPLATE } from "./restorePoints.ts";

function diskRestorePointBody(point: RestorePoint, disk: DiskRestorePoint): unknown {
  return {
    id: disk.id,
    name: disk.name,
    properties: {
      timeCreated: armTime(point.timeCreated),
      sourceResourceId: disk.diskId,
      ...(disk.osType === null ? {} : { osType: disk.osType }),
      ...(disk.hyperVGeneration === null ? {} : { hyperVGeneration: disk.hyperVGeneration }),
      familyId: disk.lineage,
      sourceUniqueId: disk.diskUid,
      encryption: { type: "EncryptionAtRestWithPlatformKey" },
      networkAccessPolicy: "AllowAll",
      publicNetworkAccess: "Enabled",
    },
  };
}

export function diskRestorePointRoutes(domain: Domain): Route[] {
  const type = "restorePointCollections/restorePoints/diskRestorePoints";
  const families = ["disk"] as const;
  return [
    {
      method: "GET",
      template: `${POINT_TEMPLATE}/diskRestorePoints`,
      type,
      families,
      handle: async ({ parameters }) => {
        const point = await domain.getPoint(fill(POINT_TEMPLATE, parameters));
        // An empty list would say that the point has no disks; while it is made, that is not known.
        if (point.state !== "Succeeded")
          throw new StillpointError(
            "OperationNotAllowed",
            `The restore point is ${point.state} (${Math.floor(point.percent)} %); it has disk restore points once it has succeeded.`,
            {
              target: "restorePointName",
              remedy: point.state === "Failed" ? "Create it again." : "Wait for it.",
            },
          );
        return ok({ value: point.disks.map((disk) => diskRestorePointBody(point, disk)) });
      },
    },
    {
      method: "GET",
      template: `${POINT_TEMPLATE}/diskRestorePoints/{diskRestorePoint}`,
      type,
      families,
      handle: async ({ parameters }) => {
        const found = await domain.getDiskRestorePoint(
          fill(POINT_TEMPLATE, parameters),
          parameters["diskRestorePoint"] ?? "",
        );
        return ok(diskRestorePointBody(found.point, found.disk));
      },
    },
  ];
}
