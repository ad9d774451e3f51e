/** The machines that QEMU is told to make, and what it tells of them. Part of the wire: guard/protocol re-exports it. */
import type { Bytes, VmUid } from "../../base/index.ts";

export type DiskFormat = "raw" | "qcow2";
export type DiskBus = "virtio-blk" | "virtio-scsi";

export interface MachineDisk {
  /** Node name of the format node, `d-{12 hex}`; its protocol node is `f-{12 hex}`. Stable for the disk's life. */
  readonly node: string;
  readonly path: string;
  readonly format: DiskFormat;
  readonly bus: DiskBus;
  /** ≤ 20 characters of [A-Za-z0-9_-]; what the guest sees as the disk's serial. */
  readonly serial: string;
  /** Whether the disk has an iothread of its own (virtio-blk) or sits on the controller that has one (virtio-scsi). */
  readonly iothread: boolean;
  /** Boot order, 1 first; absent: not bootable. */
  readonly bootIndex?: number;
}

export interface MachineNic {
  readonly mac: string;
  readonly model: "virtio-net-pci" | "e1000";
}

/** All that an equal machine needs. Closed values only: no string of a user reaches QEMU's command line unchecked. */
export interface MachineSpec {
  readonly vm: VmUid;
  readonly machineType: "q35" | "pc";
  /** `max` under TCG, `host` under KVM when `default`. */
  readonly cpuModel: "default" | "max" | "qemu64";
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly firmware: { readonly kind: "bios" } | { readonly kind: "uefi"; readonly varsPath: string };
  readonly disks: readonly MachineDisk[];
  readonly nics: readonly MachineNic[];
}

export interface BitmapFacts {
  readonly name: string;
  readonly recording: boolean;
  readonly inconsistent: boolean;
  readonly persistent: boolean;
  readonly granularityBytes: Bytes;
  readonly dirtyBytes: Bytes;
}

export interface DiskFacts {
  /** Top format node, below any filter. What `blockdev-backup` and the bitmap commands name. */
  readonly node: string;
  /** The device's qom path or id: what a user recognises. */
  readonly device: string;
  /** Host path of the image, as QEMU reports it; hostile for adopted VMs. Empty when it is no file. */
  readonly path: string;
  readonly format: string;
  readonly qcow2Version: 2 | 3 | null;
  /** QEMU's virtual size: a multiple of 512. */
  readonly sizeBytes: Bytes;
  /** Bytes allocated on the host, for sizing a staging file. */
  readonly allocatedBytes: Bytes;
  readonly iothread: boolean;
  readonly readOnly: boolean;
  readonly serial: string;
  readonly bootIndex: number | null;
  /** What stands between the device and `node` (filters, throttles), by driver. Non-empty: do not touch. */
  readonly filters: readonly string[];
  readonly bitmaps: readonly BitmapFacts[];
  /** True when the device answers a failed write by stopping the VM for every error, not for ENOSPC alone. */
  readonly stopsOnWriteError: boolean;
}

export interface NvramFacts {
  readonly node: string;
  readonly sizeBytes: Bytes;
  readonly path: string;
}

/** What one QEMU process says of itself and of its machine right now. */
export interface QemuFacts {
  /** Such as `7.2.22` or `10.0.13`. */
  readonly qemuVersion: string;
  /** QMP run state: `running`, `paused`, `shutdown`, `postmigrate`, `io-error` … */
  readonly status: string;
  readonly migrating: boolean;
  readonly accelerator: "kvm" | "tcg";
  readonly disks: readonly DiskFacts[];
  readonly nvram: NvramFacts | null;
  /** Names seen in QEMU; foreign ones included, for comparison before and after. */
  readonly jobs: readonly string[];
  readonly exports: readonly string[];
  readonly nodes: readonly string[];
  /** What a point cannot carry: `tpm`, `vfio-pci`, … with the device id. */
  readonly uncapturable: readonly string[];
  /** Machine, CPU and NICs as far as QMP tells (adopted VMs), for the record and an equal restore. */
  readonly machine: AdoptedMachine | null;
}

export interface AdoptedMachine {
  readonly machineType: string;
  readonly cpuModel: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly firmware: "bios" | "uefi";
  /** What `-bios` named; empty for the machine's own firmware and for flash. */
  readonly firmwareFile: string;
  readonly disks: readonly { readonly node: string; readonly bus: DiskBus | "other" }[];
  readonly nics: readonly { readonly mac: string; readonly model: string }[];
  /** Devices that an own machine never has (displays, USB, sound, …), by type and name. */
  readonly otherDevices: readonly string[];
}
