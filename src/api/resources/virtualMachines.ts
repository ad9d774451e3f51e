import { z } from "zod";
import type { ResourceId } from "../../base/index.ts";
import type { AttachedDisk, Domain, Operation, Vm, VmPower, VmPut } from "../../domain/index.ts";
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
import { checkedName, fill, GROUP, reference, SUBSCRIPTION } from "../arm/ids.ts";
import { pageBody, pageOptions } from "../arm/paging.ts";
import { type ArmRequest, type ArmResponse, accepted, deleted, ok, type Route } from "../arm/routes.ts";
import { armTime } from "../arm/time.ts";
import { provisioningState, type Status } from "./common.ts";

export const VM_TEMPLATE = `${GROUP}/providers/Microsoft.Compute/virtualMachines/{vm}`;

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
    ...Object.fromEntries(KEPT.map((name) => [name, z.unknown().optional()])),
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

function vmPut(id: ResourceId, body: (typeof putSchema)["_output"]): VmPut {
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

function attachedBody(disk: AttachedDisk) {
  return {
    name: disk.name,
    createOption: "Attach",
    caching: disk.caching,
    managedDisk: { id: disk.diskId },
    deleteOption: "Detach",
  };
}

export function vmBody(
  vm: Vm,
  options: { readonly power?: VmPower | undefined; readonly userData?: boolean } = {},
): unknown {
  const { userData, ...extras } = vm.extras;
  return {
    name: vm.name,
    id: vm.id,
    type: "Microsoft.Compute/virtualMachines",
    location: vm.location,
    tags: vm.tags,
    properties: {
      vmId: vm.vmUid,
      hardwareProfile: { vmSize: vm.vmSize },
      storageProfile: {
        ...(vm.osDisk === null ? {} : { osDisk: { osType: vm.osDisk.osType, ...attachedBody(vm.osDisk) } }),
        dataDisks: vm.dataDisks.map((disk) => ({ lun: disk.lun, ...attachedBody(disk), toBeDetached: false })),
      },
      ...extras,
      ...(options.userData && userData !== undefined ? { userData } : {}),
      provisioningState: provisioningState(vm),
      timeCreated: armTime(vm.timeCreated),
      ...(options.power ? { instanceView: instanceView(vm, options.power) } : {}),
    },
  };
}

const POWER: Readonly<Record<VmPower["power"], { readonly code: string; readonly display: string }>> = {
  running: { code: "PowerState/running", display: "VM running" },
  stopped: { code: "PowerState/stopped", display: "VM stopped" },
  deallocated: { code: "PowerState/deallocated", display: "VM deallocated" },
  // Azure has no word for these two; what we know stands in a status of our own beside it.
  paused: { code: "PowerState/unknown", display: "VM state unknown" },
  unreachable: { code: "PowerState/unknown", display: "VM state unknown" },
};

const AGENT: Readonly<Record<VmPower["agent"], Status>> = {
  connected: {
    code: "ProvisioningState/succeeded",
    level: "Info",
    displayStatus: "Ready",
    message: "The guest agent answers.",
  },
  silent: {
    code: "ProvisioningState/Unavailable",
    level: "Warning",
    displayStatus: "Not Ready",
    message: "The guest agent does not answer.",
  },
  absent: {
    code: "ProvisioningState/Unavailable",
    level: "Warning",
    displayStatus: "Not Ready",
    message: "The VM has no guest agent channel.",
  },
  unknown: {
    code: "ProvisioningState/Unavailable",
    level: "Warning",
    displayStatus: "Not Ready",
    message: "The guest agent was not asked.",
  },
};

export function instanceView(vm: Vm, power: VmPower): unknown {
  const { code, display } = POWER[power.power];
  const statuses: Status[] = [
    {
      code: `ProvisioningState/${vm.provisioningState.toLowerCase()}`,
      level: "Info",
      displayStatus: `Provisioning ${vm.provisioningState.toLowerCase()}`,
    },
    { code, level: "Info", displayStatus: display },
  ];
  if (power.power === "paused" || power.power === "unreachable" || power.reason !== null)
    statuses.push({
      code: `Stillpoint/Power/${power.power}`,
      level: power.power === "unreachable" ? "Error" : "Info",
      displayStatus: power.power,
      ...(power.reason === null ? {} : { message: power.reason }),
    });
  return {
    hyperVGeneration: vm.machine.firmware === "uefi" ? "V2" : "V1",
    vmAgent: { vmAgentVersion: "Unknown", statuses: [AGENT[power.agent]] },
    statuses,
  };
}

export function vmRoutes(domain: Domain): Route[] {
  const type = "virtualMachines";
  const families = ["compute"] as const;
  const idOf = (request: ArmRequest) => fill(VM_TEMPLATE, request.parameters);
  const expands = (request: ArmRequest, word: string) =>
    (request.query("$expand") ?? "").toLowerCase().split(",").includes(word.toLowerCase());
  const bodyFor = async (request: ArmRequest, vm: Vm) => {
    const wanted = expands(request, "instanceView") || request.query("statusOnly")?.toLowerCase() === "true";
    return vmBody(vm, { power: wanted ? await domain.vmPower(vm) : undefined, userData: expands(request, "userData") });
  };
  const list = (scope: string): Route => ({
    method: "GET",
    template: `${scope}/providers/Microsoft.Compute/virtualMachines`,
    type,
    families,
    handle: async (request) => {
      const page = await domain.listVms(fill(scope, request.parameters), pageOptions(request));
      return ok(pageBody(request, await Promise.all(page.value.map((vm) => bodyFor(request, vm))), page.next));
    },
  });
  const action = (verb: string, run: (id: ResourceId, request: ArmRequest) => Promise<Operation>): Route => ({
    method: "POST",
    template: `${VM_TEMPLATE}/${verb}`,
    type,
    families,
    handle: async (request): Promise<ArmResponse> => ({ status: 202, operation: await run(idOf(request), request) }),
  });
  return [
    list(SUBSCRIPTION),
    list(GROUP),
    {
      method: "GET",
      template: VM_TEMPLATE,
      type,
      families,
      handle: async (request) => ok(await bodyFor(request, await domain.getVm(idOf(request)))),
    },
    {
      method: "GET",
      template: `${VM_TEMPLATE}/instanceView`,
      type,
      families,
      handle: async (request) => {
        const vm = await domain.getVm(idOf(request));
        return ok(instanceView(vm, await domain.vmPower(vm)));
      },
    },
    {
      method: "PUT",
      template: VM_TEMPLATE,
      type,
      families,
      handle: async (request) => {
        const result = await domain.putVm(vmPut(idOf(request), parseBody(putSchema, request.body)));
        const status = result.created ? 201 : 200;
        return accepted(result, vmBody(result.resource), { done: status, running: status });
      },
    },
    {
      method: "DELETE",
      template: VM_TEMPLATE,
      type,
      families,
      handle: async (request) => deleted(await domain.deleteVm(idOf(request))),
    },
    action("start", (id) => domain.startVm(id)),
    action("powerOff", (id, request) => domain.powerOffVm(id, request.query("skipShutdown")?.toLowerCase() === "true")),
    action("deallocate", (id) => domain.deallocateVm(id)),
  ];
}
