import { idKey, type Random, StillpointError } from "../../base/index.ts";
import type { AttachedDisk, Disk, MachineConfig } from "../model.ts";

type DiskConfig = MachineConfig["disks"][string];

const MAX_NICS = 8;

/** QEMU's limit for a serial is 20 characters; the uid's first 20 hex digits stay the same for the disk's life. */
export function serialOf(disk: Disk): string {
  return disk.diskUid.replaceAll("-", "").slice(0, 20);
}

/** A random MAC address, locally administered and unicast: it belongs to no vendor. */
export function newMac(random: Random): string {
  const raw = random.bytes(6);
  raw[0] = ((raw[0] ?? 0) & 0xfc) | 0x02;
  return [...raw].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/**
 * The machine of a VM with these disks, OS disk first: what `wanted` says, and plain virtio for the rest.
 * InvalidParameter when `wanted` names a disk that is not among them.
 */
export function completeMachine(
  wanted: MachineConfig | null,
  disks: readonly { readonly disk: Disk; readonly attached: AttachedDisk }[],
  random: Random,
): MachineConfig {
  const keys = new Set<string>(disks.map(({ disk }) => idKey(disk.id)));
  for (const key of Object.keys(wanted?.disks ?? {}))
    if (!keys.has(key))
      throw new StillpointError("InvalidParameter", `The machine names the disk '${key}', which is not attached.`, {
        target: `disks['${key}']`,
        remedy: "Name attached disks only, by their lower-cased ids.",
      });
  const [first] = disks;
  const config: Record<string, DiskConfig> = {};
  for (const { disk, attached } of disks)
    config[idKey(disk.id)] = wanted?.disks[idKey(disk.id)] ?? defaultDisk(disk, attached);
  return {
    machineType: wanted?.machineType ?? "q35",
    cpuModel: wanted?.cpuModel ?? "default",
    firmware: wanted?.firmware ?? (first?.disk.hyperVGeneration === "V2" ? "uefi" : "bios"),
    disks: config,
    nics: wanted?.nics ?? [{ mac: newMac(random), model: "virtio-net-pci" }],
    notes: wanted?.notes ?? [],
  };
}

function defaultDisk(disk: Disk, attached: AttachedDisk): DiskConfig {
  return { bus: "virtio-blk", serial: serialOf(disk), iothread: false, bootIndex: attached.lun === null ? 1 : null };
}

/** What a user gave as a machine, checked value by value: all of it ends on QEMU's command line. */
export function checkMachine(machine: MachineConfig): void {
  const bad = (target: string, message: string) => new StillpointError("InvalidParameter", message, { target });
  const serials = new Set<string>();
  for (const [key, disk] of Object.entries(machine.disks)) {
    const target = `disks['${key}'].serial`;
    if (!/^[A-Za-z0-9_-]{1,20}$/.test(disk.serial))
      throw bad(target, "A serial has 1 to 20 letters, digits, '_' and '-'.");
    if (serials.has(disk.serial)) throw bad(target, `Two disks have the serial '${disk.serial}'.`);
    serials.add(disk.serial);
    const { bootIndex } = disk;
    if (bootIndex !== null && (!Number.isInteger(bootIndex) || bootIndex < 1 || bootIndex > 99))
      throw bad(`disks['${key}'].bootIndex`, "A boot index is a whole number from 1 to 99, or null.");
  }
  if (machine.nics.length > MAX_NICS) throw bad("nics", `A machine has at most ${MAX_NICS} network cards.`);
  machine.nics.forEach((nic, index) => {
    if (!/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/.test(nic.mac))
      throw bad(
        `nics[${index}].mac`,
        "A MAC address is six pairs of lower-case hex digits with ':', and no multicast.",
      );
    if (machine.nics.findIndex((other) => other.mac === nic.mac) !== index)
      throw bad(`nics[${index}].mac`, `Two network cards have the address ${nic.mac}.`);
  });
}
