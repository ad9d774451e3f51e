import { z } from "zod";
import type { ResourceId } from "../../base/index.ts";
import type { Domain, MachineConfig } from "../../domain/index.ts";
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
} from "../arm/body.ts";
import { inWireNames, type WireNames } from "../arm/errors.ts";
import { fill, reference } from "../arm/ids.ts";
import { type ArmRequest, accepted, deleted, ok, type Route } from "../arm/routes.ts";
import { VM_TEMPLATE, vmBody } from "../resources/virtualMachines.ts";

export const machineProperties = armObject({
  machineType: armEnum(["q35", "pc"]),
  cpuModel: armEnum(["default", "max", "qemu64"]).default("default"),
  firmware: armEnum(["bios", "uefi"]),
  disks: z
    .record(
      text(2048),
      armObject({
        bus: armEnum(["virtio-blk", "virtio-scsi"]),
        // What QEMU passes to the guest: a virtio serial holds 20 bytes.
        serial: z.string().regex(/^[A-Za-z0-9_-]{1,20}$/, { error: "must be 1 to 20 letters, digits, '_' or '-'" }),
        iothread: armBoolean.default(false),
        bootIndex: armInt(0, 255).nullable().default(null),
      }),
    )
    .refine((disks) => Object.keys(disks).length <= 65, { error: "must not have more than 65 disks" })
    .default({}),
  nics: z
    .array(
      armObject({
        mac: z
          .string()
          .regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i, { error: "must be a MAC address such as 52:54:00:12:34:56" })
          .transform((mac) => mac.toLowerCase())
          .refine((mac) => (Number.parseInt(mac.slice(0, 2), 16) & 1) === 0, {
            error: "must not be a multicast address",
          }),
        model: armEnum(["virtio-net-pci", "e1000"]).default("virtio-net-pci"),
      }),
      { error: "must be a list" },
    )
    .max(8, { error: "must not have more than 8 network cards" })
    .default([]),
  notes: readOnly,
});

const putSchema = armObject({ properties: machineProperties, id: readOnly, name: readOnly, type: readOnly });

const importSchema = armObject({
  location: locationSchema,
  tags: tagsSchema.optional(),
  properties: armObject({ qmpSocket: socketPath(), qgaSocket: socketPath().optional() }),
});

/** sun_path holds 108 bytes with its final zero. Whether the folder is allowed is the domain's to say. */
function socketPath() {
  return z
    .string({ error: "must be a string" })
    .max(107, { error: "must not be longer than 107 bytes" })
    .refine((path) => path.startsWith("/") && !path.includes("\0"), {
      error: "must be the absolute path of a unix socket",
    });
}

function machineBody(vmId: ResourceId, machine: MachineConfig): unknown {
  return {
    id: `${vmId}/providers/Stillpoint.Hypervisor/machines/default`,
    name: "default",
    type: "Stillpoint.Hypervisor/machines",
    properties: machine,
  };
}

/** Disks are keyed by their ids; as keys they are lower case. */
function machineOf(properties: z.output<typeof machineProperties>): MachineConfig {
  const disks: Record<string, MachineConfig["disks"][string]> = {};
  for (const [id, disk] of Object.entries(properties.disks)) {
    const key = reference("Microsoft.Compute/disks", id, `properties.disks.${id}`).toLowerCase();
    disks[key] = { bus: disk.bus, serial: disk.serial, iothread: disk.iothread, bootIndex: disk.bootIndex };
  }
  const { machineType, cpuModel, firmware, nics } = properties;
  return { machineType, cpuModel, firmware, disks, nics, notes: [] };
}

const WIRE_NAMES: WireNames = [
  [/^disks\['(.*)'\]/, "properties.disks.$1"],
  [/^(nics|machineType|cpuModel|firmware)/, "properties.$1"],
];
const IMPORT_NAMES: WireNames = [[/^(qmpSocket|qgaSocket)$/, "properties.$1"]];

export function machineRoutes(domain: Domain): Route[] {
  const families = ["stillpoint"] as const;
  const idOf = (request: ArmRequest) => fill(VM_TEMPLATE, request.parameters);
  const hypervisor = `${VM_TEMPLATE}/providers/Stillpoint.Hypervisor`;
  const template = `${hypervisor}/machines/default`;
  return [
    {
      method: "GET",
      template,
      type: "machines",
      families,
      handle: async (request) => ok(machineBody(idOf(request), await domain.getMachine(idOf(request)))),
    },
    {
      method: "PUT",
      template,
      type: "machines",
      families,
      handle: async (request) => {
        const { properties } = parseBody(putSchema, request.body);
        const machine = machineOf(properties);
        const stored = await inWireNames(WIRE_NAMES, () => domain.putMachine(idOf(request), machine));
        return ok(machineBody(idOf(request), stored));
      },
    },
    {
      method: "POST",
      template: `${hypervisor}/import`,
      type: "machines",
      families,
      handle: async (request) => {
        const { location, tags, properties } = parseBody(importSchema, request.body);
        const { qmpSocket, qgaSocket } = properties;
        const command = {
          id: idOf(request),
          location,
          tags: tags ?? {},
          qmpSocket,
          qgaSocket: qgaSocket ?? null,
        };
        const result = await inWireNames(IMPORT_NAMES, () => domain.importVm(command));
        return accepted(result, vmBody(result.resource), { done: 200, running: 202 });
      },
    },
    {
      method: "POST",
      template: `${hypervisor}/release`,
      type: "machines",
      families,
      handle: async (request) => deleted(await domain.releaseVm(idOf(request))),
    },
  ];
}
