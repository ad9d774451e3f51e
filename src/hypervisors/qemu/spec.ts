import { isAbsolute } from "node:path";
import { StillpointError } from "../../base/index.ts";
import type { MachineSpec } from "./types.ts";

const MAX_BLK_DISKS = 64;
const MAX_SCSI_DISKS = 64;
const MAX_NICS = 8;

/**
 * Whether every value is one that may stand on QEMU's command line. Throws InvalidParameter naming the first that may
 * not. The service has checked already; the guard trusts nobody with a command line.
 */
export function checkMachineSpec(spec: MachineSpec): void {
  must(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(spec.vm), "vm", "must be a lower-case UUID");
  must(["q35", "pc"].includes(spec.machineType), "machineType", "must be q35 or pc");
  must(["default", "max", "qemu64"].includes(spec.cpuModel), "cpuModel", "must be default, max or qemu64");
  must(integerIn(spec.vcpus, 1, 256), "vcpus", "must be 1 to 256");
  must(integerIn(spec.memoryMiB, 64, 4 * 1024 * 1024), "memoryMiB", "must be 64 to 4194304");
  must(["bios", "uefi"].includes(spec.firmware.kind), "firmware", "must be bios or uefi");
  if (spec.firmware.kind === "uefi") checkPath(spec.firmware.varsPath, "firmware.varsPath");
  must(Array.isArray(spec.disks) && Array.isArray(spec.nics), "disks", "must be lists");
  for (const [index, disk] of spec.disks.entries()) {
    const at = `disks[${index}]`;
    must(/^d-[0-9a-f]{12}$/.test(disk.node), `${at}.node`, "must be d- and 12 hex digits");
    checkPath(disk.path, `${at}.path`);
    must(["raw", "qcow2"].includes(disk.format), `${at}.format`, "must be raw or qcow2");
    must(["virtio-blk", "virtio-scsi"].includes(disk.bus), `${at}.bus`, "must be virtio-blk or virtio-scsi");
    must(/^[A-Za-z0-9_-]{0,20}$/.test(disk.serial), `${at}.serial`, "must be at most 20 of A-Z a-z 0-9 _ -");
    must(typeof disk.iothread === "boolean", `${at}.iothread`, "must be true or false");
    if (disk.bootIndex !== undefined) must(integerIn(disk.bootIndex, 1, 1000), `${at}.bootIndex`, "must be 1 to 1000");
  }
  must(
    new Set(spec.disks.map((disk) => disk.node)).size === spec.disks.length,
    "disks",
    "must have nodes of their own",
  );
  must(count(spec, "virtio-blk") <= MAX_BLK_DISKS, "disks", `can hold ${MAX_BLK_DISKS} virtio-blk disks`);
  must(count(spec, "virtio-scsi") <= MAX_SCSI_DISKS, "disks", `can hold ${MAX_SCSI_DISKS} virtio-scsi disks`);
  must(spec.nics.length <= MAX_NICS, "nics", `can hold ${MAX_NICS}`);
  for (const [index, nic] of spec.nics.entries()) {
    must(/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(nic.mac), `nics[${index}].mac`, "must be six pairs of hex digits");
    must(["virtio-net-pci", "e1000"].includes(nic.model), `nics[${index}].model`, "must be virtio-net-pci or e1000");
  }
}

function count(spec: MachineSpec, bus: string): number {
  return spec.disks.filter((disk) => disk.bus === bus).length;
}

function checkPath(path: unknown, target: string): void {
  const ok =
    typeof path === "string" &&
    isAbsolute(path) &&
    path.length < 4096 &&
    !path.includes("\0") &&
    !path.split("/").includes("..") &&
    // QEMU reads this one as a number of a file descriptor set.
    !path.startsWith("/dev/fdset");
  must(ok, target, "must be an absolute path without '..'");
}

function integerIn(value: unknown, low: number, high: number): boolean {
  return Number.isSafeInteger(value) && (value as number) >= low && (value as number) <= high;
}

function must(holds: boolean, target: string, rule: string): void {
  if (!holds) throw new StillpointError("InvalidParameter", `The machine's ${target} ${rule}.`, { target });
}
