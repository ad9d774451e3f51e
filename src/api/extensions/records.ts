import type { Domain, RestorePoint } from "../../domain/index.ts";
import { fill } from "../arm/ids.ts";
import { deleted, ok, type Route } from "../arm/routes.ts";
import { pointProvisioningState } from "../resources/common.ts";
import { POINT_TEMPLATE } from "../resources/restorePoints.ts";

/** The whole truth about a point. What is not known yet is absent, never guessed. */
function recordBody(point: RestorePoint): unknown {
  return {
    id: `${point.id}/providers/Stillpoint.Capture/records/default`,
    name: "default",
    type: "Stillpoint.Capture/records",
    properties: {
      provisioningState: pointProvisioningState(point.state),
      percent: Math.floor(point.percent),
      pointUid: point.uid,
      vmUid: point.vmUid,
      vmId: point.vmId,
      timeCreated: point.timeCreated,
      ...(point.takenAt === null ? {} : { takenAt: point.takenAt }),
      ...(point.manifest === null ? {} : { manifest: point.manifest }),
      ...(point.error === null ? {} : { error: point.error }),
      ...(point.record === null ? {} : { record: point.record }),
    },
  };
}

export function recordRoutes(domain: Domain): Route[] {
  return [
    {
      method: "GET",
      template: `${POINT_TEMPLATE}/providers/Stillpoint.Capture/records/default`,
      type: "records",
      families: ["stillpoint"],
      handle: async ({ parameters }) => ok(recordBody(await domain.getPoint(fill(POINT_TEMPLATE, parameters)))),
    },
    {
      method: "POST",
      template: `${POINT_TEMPLATE}/providers/Stillpoint.Capture/abandon`,
      type: "captures",
      families: ["stillpoint"],
      handle: async ({ parameters }) => deleted(await domain.abandonPoint(fill(POINT_TEMPLATE, parameters))),
    },
  ];
}
