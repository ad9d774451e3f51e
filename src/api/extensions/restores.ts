import { z } from "zod";
import type { ResourceId } from "../../base/index.ts";
import type { Domain, RestoreCommand } from "../../domain/index.ts";
import { armBoolean, armObject, parseBody, text } from "../arm/body.ts";
import { inWireNames, type WireNames } from "../arm/errors.ts";
import { checkedName, fill, GROUP, reference } from "../arm/ids.ts";
import type { ArmRequest, Route } from "../arm/routes.ts";
import { POINT_TEMPLATE } from "../resources/restorePoints.ts";

export const restoreProperties = armObject({
  targetResourceGroup: text(2048),
  vmName: text(80).optional(),
  diskNames: z.record(text(2048), text(80)).optional(),
  diskRestorePoints: z
    .array(armObject({ id: text(2048) }), { error: "must be a list" })
    .max(65, { error: "must not name more than 65" })
    .optional(),
  start: armBoolean.optional(),
  keepIdentity: armBoolean.optional(),
});

const postSchema = armObject({ properties: restoreProperties });

/** A group's name means one of the point's own subscription. */
function targetGroup(given: string, request: ArmRequest): ResourceId {
  const target = "properties.targetResourceGroup";
  if (given.startsWith("/")) return reference("Microsoft.Resources/resourceGroups", given, target);
  return fill(GROUP, { ...request.parameters, group: checkedName("group", given, target) });
}

function restoreCommand(request: ArmRequest): RestoreCommand {
  const { properties } = parseBody(postSchema, request.body);
  const diskNames: Record<string, string> = {};
  for (const [id, name] of Object.entries(properties.diskNames ?? {})) {
    const target = `properties.diskNames.${id}`;
    diskNames[reference("Microsoft.Compute/disks", id, target).toLowerCase()] = checkedName("disk", name, target);
  }
  const type = "Microsoft.Compute/restorePointCollections/restorePoints/diskRestorePoints" as const;
  return {
    pointId: fill(POINT_TEMPLATE, request.parameters),
    targetGroup: targetGroup(properties.targetResourceGroup, request),
    vmName: properties.vmName === undefined ? null : checkedName("vm", properties.vmName, "properties.vmName"),
    diskNames,
    onlyDisks: (properties.diskRestorePoints ?? []).map(({ id }, i) =>
      reference(type, id, `properties.diskRestorePoints[${i}].id`),
    ),
    start: properties.start ?? false,
    keepIdentity: properties.keepIdentity ?? false,
  };
}

const WIRE_NAMES: WireNames = [
  [/^onlyDisks\[(\d+)\]$/, "properties.diskRestorePoints[$1].id"],
  [/^onlyDisks$/, "properties.diskRestorePoints"],
  [/^targetGroup$/, "properties.targetResourceGroup"],
  [/^(vmName|diskNames|start|keepIdentity)/, "properties.$1"],
];

export function restoreRoutes(domain: Domain): Route[] {
  return [
    {
      method: "POST",
      template: `${POINT_TEMPLATE}/providers/Stillpoint.Restore/restores`,
      type: "restores",
      families: ["stillpoint"],
      handle: async (request) => {
        const command = restoreCommand(request);
        return { status: 202, operation: await inWireNames(WIRE_NAMES, () => domain.restore(command)) };
      },
    },
  ];
}
