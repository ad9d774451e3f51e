import type { Accelerator } from "./accelerator.ts";
import { checkMachineSpec } from "./spec.ts";
import type { MachineDisk, MachineNic, MachineSpec } from "./types.ts";

/** What the host adds to a machine: paths of our own making. */
export interface LaunchSettings {
  readonly accelerator: Accelerator;
  readonly firmwareCode: string;
  readonly qmpSocket: string;
  readonly agentSocket: string;
  readonly consoleSocket: string;
  readonly pidFile: string;
}

/** Label of the agent's channel in `query-chardev`. */
export const AGENT_CHARDEV = "qga0";
const SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/**
 * QEMU's arguments for a machine. Starts stopped (`-S`): the guard marks the process before a guest runs in it.
 * Everything that has a path or a name is given as JSON, where no comma can add an option. Throws InvalidParameter.
 */
export function qemuArguments(spec: MachineSpec, settings: LaunchSettings): readonly string[] {
  checkMachineSpec(spec);
  const uefi = spec.firmware.kind === "uefi";
  return [
    // A power-off by the guest keeps the process, and with it the frozen source of a copy.
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-shutdown", "-S"],
    ...["-sandbox", SANDBOX, "-uuid", spec.vm, "-name", `guest=${spec.vm}`, "-pidfile", settings.pidFile],
    ...["-machine", `${spec.machineType}${uefi ? ",pflash0=fw-code,pflash1=nvram" : ""}`],
    ...["-accel", settings.accelerator, "-cpu", cpu(spec, settings.accelerator)],
    ...["-smp", `cpus=${spec.vcpus}`, "-m", `size=${spec.memoryMiB}M`, "-rtc", "base=utc"],
    ...["-chardev", serverSocket("qmp0", settings.qmpSocket), "-mon", "chardev=qmp0,mode=control"],
    ...firmware(spec, settings),
    ...console_(settings),
    ...agent(settings),
    ...controllers(spec),
    ...disks(spec),
    ...spec.nics.flatMap(nic),
  ];
}

function cpu(spec: MachineSpec, accelerator: Accelerator): string {
  if (spec.cpuModel !== "default") return spec.cpuModel;
  return accelerator === "kvm" ? "host" : "max";
}

/** The variable store is an ordinary node, so that it can be one more member of a point. */
function firmware(spec: MachineSpec, settings: LaunchSettings): readonly string[] {
  if (spec.firmware.kind === "bios") return [];
  return [
    ...blockdev({ driver: "file", "node-name": "fw-code-file", filename: settings.firmwareCode, "read-only": true }),
    ...blockdev({ driver: "raw", "node-name": "fw-code", file: "fw-code-file", "read-only": true }),
    ...blockdev({ driver: "file", "node-name": "nvram-file", filename: spec.firmware.varsPath }),
    ...blockdev({ driver: "raw", "node-name": "nvram", file: "nvram-file" }),
  ];
}

/**
 * The serial line on a socket, so that whoever may open it can log in. What nobody reads is dropped: a guest cannot
 * fill the host's disk with it.
 */
function console_(settings: LaunchSettings): readonly string[] {
  return ["-chardev", serverSocket("console", settings.consoleSocket), "-serial", "chardev:console"];
}

function agent(settings: LaunchSettings): readonly string[] {
  return [
    ...["-chardev", serverSocket(AGENT_CHARDEV, settings.agentSocket)],
    ...device({ driver: "virtio-serial-pci", id: "vser0", addr: "3.0" }),
    ...device({ driver: "virtserialport", bus: "vser0.0", chardev: AGENT_CHARDEV, name: "org.qemu.guest_agent.0" }),
  ];
}

/** A comma in a path is doubled, or it would begin another option. */
function serverSocket(id: string, path: string): string {
  return `socket,id=${id},path=${path.replaceAll(",", ",,")},server=on,wait=off`;
}

/** Two SCSI controllers at most: one whose disks share an iothread, one without. */
function controllers(spec: MachineSpec): readonly string[] {
  const scsi = spec.disks.filter((disk) => disk.bus === "virtio-scsi");
  return [
    ...(scsi.some((disk) => !disk.iothread) ? device({ driver: "virtio-scsi-pci", id: "scsi", addr: "4.0" }) : []),
    ...(scsi.some((disk) => disk.iothread)
      ? [
          ...["-object", "iothread,id=io-scsi"],
          ...device({ driver: "virtio-scsi-pci", id: "scsi-io", iothread: "io-scsi", addr: "5.0" }),
        ]
      : []),
  ];
}

const NIC_SLOT = 0x6;
const DISK_SLOT = 0x10;

function disks(spec: MachineSpec): readonly string[] {
  let blkIndex = 0;
  return spec.disks.flatMap((disk) => [
    ...nodes(disk),
    ...(disk.bus === "virtio-blk" ? blkDisk(disk, blkIndex++) : scsiDisk(disk)),
  ]);
}

/**
 * Formats are named, so nothing is probed. `discard=unmap` gives the space of trimmed ranges back; zero detection stays
 * off, because it costs every write a scan and tears holes into images that were preallocated on purpose.
 */
function nodes(disk: MachineDisk): readonly string[] {
  const file = disk.node.replace(/^d-/, "f-");
  return [
    ...blockdev({ driver: "file", "node-name": file, filename: disk.path, discard: "unmap" }),
    ...blockdev({ driver: disk.format, "node-name": disk.node, file, discard: "unmap" }),
  ];
}

/** A failed read or write stops the VM: the guest waits for the operator instead of seeing a broken disk. */
const ON_ERROR = { werror: "stop", rerror: "stop" };

function blkDisk(disk: MachineDisk, index: number): readonly string[] {
  const id = disk.node.slice(2);
  // Eight functions a slot, in the order of the list: the guest finds its disks in that order.
  const where = { addr: `${(DISK_SLOT + (index >> 3)).toString(16)}.${index & 7}`, multifunction: (index & 7) === 0 };
  return [
    ...(disk.iothread ? ["-object", `iothread,id=io-${id}`] : []),
    ...device({
      driver: "virtio-blk-pci",
      id: `disk-${id}`,
      drive: disk.node,
      ...(disk.iothread ? { iothread: `io-${id}` } : {}),
      ...identity(disk),
      ...ON_ERROR,
      ...where,
    }),
  ];
}

function scsiDisk(disk: MachineDisk): readonly string[] {
  const bus = disk.iothread ? "scsi-io.0" : "scsi.0";
  const id = `disk-${disk.node.slice(2)}`;
  return device({ driver: "scsi-hd", id, bus, drive: disk.node, ...identity(disk), ...ON_ERROR });
}

function identity(disk: MachineDisk) {
  return {
    ...(disk.serial ? { serial: disk.serial } : {}),
    ...(disk.bootIndex === undefined ? {} : { bootindex: disk.bootIndex }),
  };
}

/** Each network card hangs on a hub of its own: link up, nobody there. */
function nic(card: MachineNic, index: number): readonly string[] {
  return [
    ...["-netdev", `hubport,id=net${index},hubid=${index}`],
    ...device({
      driver: card.model,
      id: `nic${index}`,
      netdev: `net${index}`,
      mac: card.mac.toLowerCase(),
      addr: `${(NIC_SLOT + index).toString(16)}.0`,
    }),
  ];
}

function blockdev(options: Readonly<Record<string, unknown>>): readonly string[] {
  return ["-blockdev", JSON.stringify(options)];
}

function device(options: Readonly<Record<string, unknown>>): readonly string[] {
  return ["-device", JSON.stringify(options)];
}
