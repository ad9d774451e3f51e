import { z } from "zod";
import type { ResourceId } from "../../base/index.ts";
import type { AttachedDisk, VmPut } from "../../domain/index.ts";
import {
  armBoolean,
  armEnum,
  armInt,
  armObject,
  locationSchema,
  parseBody,
  readOnly,
  tagsSchema,
  text,
  unsupported,
} from "../arm/body.ts";
import { checkedName, reference } from "../arm/ids.ts";

const caching = armEnum(["None", "ReadOnly", "ReadWrite"]);
const attachOnly = armEnum(["Attach"]);
const managedDisk = armObject({ id: text(2048), storageAccountType: readOnly });
const diskMembers = {
  name: text(80).optional(),
  createOption: attachOnly,
  caching: caching.optional(),
  managedDisk,
  diskSizeGB: readOnly,
  deleteOption: armEnum(["Detach"]).optional(),
  writeAcceleratorEnabled: armBoolean
    .optional()
    .refine((value) => value !== true, { error: "there is no write accelerator here" }),
} as const;

/** Members of Azure's that do not change what runs here: kept and shown again, as an inventory needs them. */
const KEPT = [
  "osProfile",
  "networkProfile",
  "diagnosticsProfile",
  "licenseType",
  "userData",
  "securityProfile",
  "availabilitySet",
  "proximityPlacementGroup",
] as const;

/** Kept members go into every restore point of the VM: bounded. */
const KEPT_LIMIT_BYTES = 64 * 1024;
const kept = z
  .unknown()
  .optional()
  .refine((value) => value === undefined || JSON.stringify(value).length <= KEPT_LIMIT_BYTES, {
    error: `must not be longer than ${KEPT_LIMIT_BYTES} bytes of JSON`,
  });

const putSchema = armObject({
  location: locationSchema,
  tags: tagsSchema.optional(),
  zones: unsupported("this site has no zones; leave it out"),
  properties: armObject({
    hardwareProfile: armObject({ vmSize: text(80) }),
    storageProfile: armObject({
      imageReference: unsupported("a VM is made from existing disks; leave it out"),
      osDisk: armObject({ ...diskMembers, osType: armEnum(["Linux", "Windows"]) }),
      dataDisks: z
        .array(armObject({ ...diskMembers, lun: armInt(0, 63), toBeDetached: armBoolean.optional() }), {
          error: "must be a list",
        })
        .max(64, { error: "must not have more than 64 disks" })
        .optional(),
      diskControllerType: readOnly,
    }),
    ...Object.fromEntries(KEPT.map((name) => [name, kept])),
    vmId: readOnly,
    provisioningState: readOnly,
    timeCreated: readOnly,
    instanceView: readOnly,
  }),
  id: readOnly,
  name: readOnly,
  type: readOnly,
  resources: readOnly,
});

/** The body of a PUT as a command. Throws with `target` naming the member that is wrong. */
export function vmPut(id: ResourceId, given: unknown): VmPut {
  const body = parseBody(putSchema, given);
  const { storageProfile, hardwareProfile } = body.properties;
  const { osDisk } = storageProfile;
  const attached = (
    disk: { name?: string | undefined; caching?: AttachedDisk["caching"] | undefined; managedDisk: { id: string } },
    at: string,
  ) => ({
    diskId: reference("Microsoft.Compute/disks", disk.managedDisk.id, `${at}.managedDisk.id`),
    name: disk.name === undefined ? null : checkedName("disk", disk.name, `${at}.name`),
    caching: disk.caching ?? "None",
  });
  const at = "properties.storageProfile";
  return {
    id,
    location: body.location,
    tags: body.tags ?? {},
    vmSize: hardwareProfile.vmSize,
    osDisk: { ...attached(osDisk, `${at}.osDisk`), osType: osDisk.osType },
    dataDisks: (storageProfile.dataDisks ?? [])
      .map((disk, i) => ({ disk, path: `${at}.dataDisks[${i}]` }))
      .filter(({ disk }) => disk.toBeDetached !== true)
      .map(({ disk, path }) => ({ ...attached(disk, path), lun: disk.lun })),
    extras: keptMembers(body.properties),
  };
}

/** What is kept of the request, without the secrets an osProfile can carry. */
function keptMembers(properties: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  for (const name of KEPT)
    if (properties[name] !== undefined)
      kept[name] = name === "osProfile" ? withoutSecrets(properties[name]) : properties[name];
  return kept;
}

const SECRET_MEMBERS = new Set([
  "adminpassword",
  "customdata",
  "secrets",
  "additionalunattendcontent",
  "protectedsettings",
]);

function withoutSecrets(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutSecrets);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name]) => !SECRET_MEMBERS.has(name.toLowerCase()))
      .map(([name, member]) => [name, withoutSecrets(member)]),
  );
}
