import { type Bytes, bytes, GiB, type ResourceId, StillpointError } from "../../base/index.ts";
import type { Disk, DiskPut, Domain } from "../../domain/index.ts";
import {
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
import { fill, GROUP, reference, SUBSCRIPTION } from "../arm/ids.ts";
import { pageBody, pageOptions } from "../arm/paging.ts";
import { type ArmRequest, accepted, deleted, ok, type Route } from "../arm/routes.ts";
import { armTime } from "../arm/time.ts";
import { provisioningState } from "./common.ts";

const KEYS_LATER = "disks are encrypted with the platform's key only; leave it out";

const skuSchema = armObject({ name: text(80), tier: readOnly });

/** Members that clients send back unchanged after a GET, or that only have one value here. */
const commonProperties = {
  diskSizeGB: armInt(1, 65_536).optional(),
  encryption: armObject({
    type: armEnum(["EncryptionAtRestWithPlatformKey"]).optional(),
    diskEncryptionSetId: unsupported(KEYS_LATER),
  }).optional(),
  networkAccessPolicy: armEnum(["AllowAll"]).optional(),
  publicNetworkAccess: armEnum(["Enabled"]).optional(),
  maxShares: armInt(1, 1).optional(),
  diskSizeBytes: readOnly,
  uniqueId: readOnly,
  timeCreated: readOnly,
  provisioningState: readOnly,
  diskState: readOnly,
  diskIOPSReadWrite: readOnly,
  diskMBpsReadWrite: readOnly,
  tier: readOnly,
} as const;

const ownMembers = {
  id: readOnly,
  name: readOnly,
  type: readOnly,
  managedBy: readOnly,
  managedByExtended: readOnly,
} as const;

const putSchema = armObject({
  location: locationSchema,
  tags: tagsSchema.optional(),
  sku: skuSchema.optional(),
  zones: unsupported("this site has no zones; leave it out"),
  properties: armObject({
    ...commonProperties,
    osType: armEnum(["Linux", "Windows"]).optional(),
    hyperVGeneration: armEnum(["V1", "V2"]).optional(),
    creationData: armObject({
      createOption: armEnum(["Empty", "Import", "Restore", "Attach"]),
      sourceUri: text(4096).optional(),
      sourceResourceId: text(2048).optional(),
      storageAccountId: readOnly,
      sourceUniqueId: readOnly,
      logicalSectorSize: armInt(512, 512).optional(),
    }),
  }),
  ...ownMembers,
});

const patchSchema = armObject({
  tags: tagsSchema.optional(),
  sku: skuSchema.optional(),
  properties: armObject(commonProperties).optional(),
  ...ownMembers,
});

/** Only Restore and Import name a source; naming one elsewhere is a mistake worth telling. */
function creationOf(data: {
  createOption: string;
  sourceUri?: string | undefined;
  sourceResourceId?: string | undefined;
}): DiskPut["creation"] {
  const at = (member: string) => `properties.creationData.${member}`;
  const need = (member: "sourceUri" | "sourceResourceId"): string => {
    const value = data[member];
    if (value === undefined)
      throw new StillpointError("InvalidParameter", `Required parameter '${at(member)}' is missing (null).`, {
        target: at(member),
      });
    return value;
  };
  const refuse = (member: "sourceUri" | "sourceResourceId") => {
    if (data[member] !== undefined)
      throw new StillpointError(
        "InvalidParameter",
        `'${at(member)}' is not allowed with createOption ${data.createOption}.`,
        { target: at(member) },
      );
  };
  switch (data.createOption) {
    case "Restore":
      refuse("sourceUri");
      return {
        createOption: "Restore",
        sourceResourceId: reference(
          "Microsoft.Compute/restorePointCollections/restorePoints/diskRestorePoints",
          need("sourceResourceId"),
          at("sourceResourceId"),
        ),
      };
    case "Import": {
      refuse("sourceResourceId");
      const sourceUri = need("sourceUri");
      if (!sourceUri.startsWith("pool://"))
        throw new StillpointError(
          "InvalidParameter",
          "A disk can only be imported from a pool of a host; no other address is ever fetched.",
          {
            target: at("sourceUri"),
            remedy: "Give pool://{host}/{pool}/{relative path}.",
          },
        );
      return { createOption: "Import", sourceUri };
    }
    case "Attach":
      throw new StillpointError(
        "InvalidParameter",
        "A disk with createOption Attach comes into being when a running VM is imported.",
        {
          target: at("createOption"),
          remedy: "Use Empty, Import or Restore.",
        },
      );
    default:
      refuse("sourceUri");
      refuse("sourceResourceId");
      return { createOption: "Empty" };
  }
}

function sizeOf(gigabytes: number | undefined): Bytes | null {
  return gigabytes === undefined ? null : bytes(gigabytes * GiB);
}

export function diskBody(disk: Disk): unknown {
  return {
    name: disk.name,
    id: disk.id,
    type: "Microsoft.Compute/disks",
    location: disk.location,
    tags: disk.tags,
    sku: {
      name: disk.sku,
      tier: disk.sku.startsWith("Premium") ? "Premium" : disk.sku.startsWith("Ultra") ? "Ultra" : "Standard",
    },
    ...(disk.managedBy === null ? {} : { managedBy: disk.managedBy }),
    properties: {
      ...(disk.osType === null ? {} : { osType: disk.osType }),
      ...(disk.hyperVGeneration === null ? {} : { hyperVGeneration: disk.hyperVGeneration }),
      creationData: disk.creation,
      // Whole GiB, rounded up: the exact size stands beside it.
      diskSizeGB: Math.ceil(disk.sizeBytes / GiB),
      encryption: { type: "EncryptionAtRestWithPlatformKey" },
      networkAccessPolicy: "AllowAll",
      publicNetworkAccess: "Enabled",
      timeCreated: armTime(disk.timeCreated),
      provisioningState: provisioningState(disk),
      diskState: disk.managedBy === null ? "Unattached" : "Attached",
      diskSizeBytes: disk.sizeBytes,
      uniqueId: disk.diskUid,
    },
  };
}

export function diskRoutes(domain: Domain): Route[] {
  const template = `${GROUP}/providers/Microsoft.Compute/disks/{disk}`;
  const type = "disks";
  const families = ["disk"] as const;
  const idOf = (request: ArmRequest) => fill(template, request.parameters);
  const list = (scope: string): Route => ({
    method: "GET",
    template: `${scope}/providers/Microsoft.Compute/disks`,
    type,
    families,
    handle: async (request) => {
      const page = await domain.listDisks(fill(scope, request.parameters), pageOptions(request));
      return ok(pageBody(request, page.value.map(diskBody), page.next));
    },
  });
  return [
    list(SUBSCRIPTION),
    list(GROUP),
    {
      method: "GET",
      template,
      type,
      families,
      handle: async (request) => ok(diskBody(await domain.getDisk(idOf(request)))),
    },
    {
      method: "PUT",
      template,
      type,
      families,
      handle: async (request) => {
        const result = await domain.putDisk(diskPut(idOf(request), parseBody(putSchema, request.body)));
        return accepted(result, diskBody(result.resource), { done: 200, running: 202 });
      },
    },
    { method: "PATCH", template, type, families, handle: (request) => patch(domain, idOf(request), request) },
    {
      method: "DELETE",
      template,
      type,
      families,
      handle: async (request) => deleted(await domain.deleteDisk(idOf(request))),
    },
  ];
}

function diskPut(id: ResourceId, body: (typeof putSchema)["_output"]): DiskPut {
  return {
    id,
    location: body.location,
    tags: body.tags ?? {},
    sku: body.sku?.name ?? null,
    format: null,
    osType: body.properties.osType ?? null,
    hyperVGeneration: body.properties.hyperVGeneration ?? null,
    sizeBytes: sizeOf(body.properties.diskSizeGB),
    creation: creationOf(body.properties.creationData),
  };
}

async function patch(domain: Domain, id: ResourceId, request: ArmRequest) {
  const body = parseBody(patchSchema, request.body);
  if (body.sku) {
    const { sku } = await domain.getDisk(id);
    if (sku.toLowerCase() !== body.sku.name.toLowerCase())
      throw new StillpointError("PropertyChangeNotAllowed", `The sku of a disk cannot be changed from '${sku}'.`, {
        target: "sku.name",
        remedy: "Take a restore point and restore the disk with the sku you need.",
      });
  }
  const result = await domain.updateDisk(id, {
    tags: body.tags ?? null,
    sizeBytes: sizeOf(body.properties?.diskSizeGB),
  });
  return accepted(result, diskBody(result.resource), { done: 200, running: 202 });
}
