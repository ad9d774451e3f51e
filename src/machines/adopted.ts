/** A foreign QEMU in the words of our own machine model, and what that model cannot say of it. */
import { StillpointError } from "../base/index.ts";
import type { Adopted, MachineConfig } from "../domain/index.ts";
import type { AdoptedMachine, DiskFacts, VmFacts } from "../guard/protocol.ts";

type Nic = MachineConfig["nics"][number];

/** Own machines have at most so many. */
const MAX_NICS = 8;

/** Throws OperationNotAllowed for a disk of a format that cannot be captured. */
export function adopted(facts: VmFacts): Adopted {
  const { machine } = facts;
  if (!machine)
    throw new StillpointError("HypervisorUnavailable", "QEMU did not tell what machine it runs.", {
      remedy: "Stillpoint adopts x86 QEMU 7.2 and later.",
    });
  const notes: string[] = [];
  const found = capturable(facts);
  const disks = found.map((disk) => adoptedDisk(disk, machine, bootRank(disk, found), notes));
  const config = {
    machineType: pick(machineType(machine), ["q35", "pc"], "q35", "machine type", notes),
    cpuModel: pick(machine.cpuModel, ["max", "qemu64", "default"], "default", "CPU model", notes),
    firmware: machine.firmware,
    nics: nics(machine, notes),
  };
  if (machine.firmwareFile !== "")
    notes.push(
      `firmware '${machine.firmwareFile.slice(0, 200)}' is restored as this host's ${machine.firmware} firmware`,
    );
  for (const device of machine.otherDevices) notes.push(`device ${device} is not part of the restored machine`);
  return {
    vcpus: machine.vcpus,
    memoryMiB: machine.memoryMiB,
    disks,
    machine: { ...config, notes },
    nvramPath: facts.nvram?.path ?? null,
  };
}

/** What else there is (read-only, or no file) is named in each point's record as not captured. */
function capturable(facts: VmFacts): readonly DiskFacts[] {
  return facts.disks.filter((disk) => !disk.readOnly && disk.path !== "");
}

/** `pc-q35-7.2` and `pc-i440fx-7.2` are versions of the two. */
function machineType({ machineType: full }: AdoptedMachine): string {
  if (full.startsWith("pc-i440fx-")) return "pc";
  return full.startsWith("pc-q35-") ? "q35" : full;
}

function pick<T extends string>(value: string, known: readonly T[], fallback: T, what: string, notes: string[]): T {
  const found = known.find((candidate) => value === candidate);
  if (found === undefined) notes.push(`${what} '${value.slice(0, 80)}' is restored as '${fallback}'`);
  return found ?? fallback;
}

function nics(machine: AdoptedMachine, notes: string[]): readonly Nic[] {
  for (const nic of machine.nics.slice(MAX_NICS))
    notes.push(`network card ${nic.mac} is one too many and not restored`);
  return machine.nics.slice(0, MAX_NICS).map(({ mac, model }) => ({
    mac: mac.toLowerCase(),
    model: pick(model, ["virtio-net-pci", "e1000"], "virtio-net-pci", `network card ${mac.slice(0, 17)}: model`, notes),
  }));
}

/** QEMU counts boot indices from 0 and allows gaps; ours begin with 1. Only their order matters. */
function bootRank(disk: DiskFacts, disks: readonly DiskFacts[]): number | null {
  const { bootIndex } = disk;
  if (bootIndex === null) return null;
  return 1 + disks.filter((other) => other.bootIndex !== null && other.bootIndex < bootIndex).length;
}

function adoptedDisk(
  disk: DiskFacts,
  machine: AdoptedMachine,
  bootIndex: number | null,
  notes: string[],
): Adopted["disks"][number] {
  if (disk.format !== "raw" && disk.format !== "qcow2")
    throw new StillpointError(
      "OperationNotAllowed",
      `Disk '${disk.device}' is ${disk.format}, which Stillpoint cannot capture.`,
      { remedy: "Adopted virtual machines may have raw and qcow2 disks." },
    );
  const bus = machine.disks.find((candidate) => candidate.node === disk.node)?.bus;
  if (bus === "other")
    notes.push(`disk ${disk.device}: its bus is restored as 'virtio-blk', for which the guest needs a driver`);
  const serial = /^[A-Za-z0-9_-]{0,20}$/.test(disk.serial) ? disk.serial : "";
  if (serial !== disk.serial) notes.push(`disk ${disk.device}: its serial is restored as another one`);
  return {
    path: disk.path,
    format: disk.format,
    sizeBytes: disk.sizeBytes,
    bus: bus === "virtio-scsi" ? "virtio-scsi" : "virtio-blk",
    serial,
    iothread: disk.iothread,
    bootIndex,
    node: disk.node,
    device: disk.device,
  };
}
