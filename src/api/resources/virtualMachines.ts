import type { ResourceId } from "../../base/index.ts";
import type { AttachedDisk, Domain, Operation, Vm, VmPower } from "../../domain/index.ts";
import { fill, GROUP, SUBSCRIPTION } from "../arm/ids.ts";
import { pageBody, pageOptions } from "../arm/paging.ts";
import { type ArmRequest, type ArmResponse, accepted, deleted, ok, type Route } from "../arm/routes.ts";
import { armTime } from "../arm/time.ts";
import { provisioningState, type Status } from "./common.ts";
import { vmPut } from "./virtualMachinePut.ts";

export const VM_TEMPLATE = `${GROUP}/providers/Microsoft.Compute/virtualMachines/{vm}`;

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

function instanceView(vm: Vm, power: VmPower): unknown {
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
        const result = await domain.putVm(vmPut(idOf(request), request.body));
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
