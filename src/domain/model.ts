/** What Stillpoint manages, neutral of api-versions and of SQL. All values are immutable. */
import type { Bytes, DiskUid, IdKey, OperationId, PointUid, ResourceId, VmUid } from "../base/index.ts";

export type Tags = Readonly<Record<string, string>>;
export type ProvisioningState = "Creating" | "Updating" | "Succeeded" | "Failed" | "Deleting";
export type ConsistencyMode = "CrashConsistent" | "FileSystemConsistent" | "ApplicationConsistent";
export type DiskFormat = "raw" | "qcow2";
export type OsType = "Linux" | "Windows";

export interface ResourceGroup {
  readonly id: ResourceId;
  readonly subscriptionId: string;
  readonly name: string;
  readonly location: string;
  readonly tags: Tags;
}

/** Common to every resource inside a group. */
interface Tracked {
  readonly id: ResourceId;
  readonly name: string;
  readonly location: string;
  readonly tags: Tags;
  readonly provisioningState: ProvisioningState;
  readonly timeCreated: string;
}

export interface DiskError {
  readonly code: string;
  readonly message: string;
}

export interface Disk extends Tracked {
  readonly kind: "disk";
  readonly diskUid: DiskUid;
  readonly sku: string;
  readonly format: DiskFormat;
  /** Absolute path of the image on the host; null until it is there. */
  readonly path: string | null;
  /** QEMU's virtual size: a multiple of 512. */
  readonly sizeBytes: Bytes;
  /** Length of the raw file when it is no multiple of 512; else null. */
  readonly rawFileBytes: Bytes | null;
  /** `imported` files stay when the disk is deleted; `made` ones are unlinked. `foreign`: belongs to an adopted VM. */
  readonly origin: "made" | "imported" | "foreign";
  readonly creation:
    | { readonly createOption: "Empty" }
    | { readonly createOption: "Import"; readonly sourceUri: string }
    | { readonly createOption: "Attach" }
    | { readonly createOption: "Restore"; readonly sourceResourceId: ResourceId };
  readonly osType: OsType | null;
  readonly hyperVGeneration: "V1" | "V2" | null;
  /** The VM it is attached to. */
  readonly managedBy: ResourceId | null;
  readonly error: DiskError | null;
}

/** Machine details of one attached disk (Stillpoint.Hypervisor). */
export interface AttachedDisk {
  readonly diskId: ResourceId;
  readonly name: string;
  /** null for the OS disk. */
  readonly lun: number | null;
  readonly caching: "None" | "ReadOnly" | "ReadWrite";
}

/** The machine beside the Azure shape: `machines/default`. Keyed per disk by lower-cased disk id. */
export interface MachineConfig {
  readonly machineType: "q35" | "pc";
  readonly cpuModel: "default" | "max" | "qemu64";
  readonly firmware: "bios" | "uefi";
  readonly disks: Readonly<
    Record<
      string,
      {
        readonly bus: "virtio-blk" | "virtio-scsi";
        readonly serial: string;
        readonly iothread: boolean;
        readonly bootIndex: number | null;
      }
    >
  >;
  readonly nics: readonly { readonly mac: string; readonly model: "virtio-net-pci" | "e1000" }[];
  /** For adopted VMs: what QMP told and this machine model cannot express, word by word for the operator. */
  readonly notes: readonly string[];
}

export interface Vm extends Tracked {
  readonly kind: "vm";
  readonly vmUid: VmUid;
  readonly control: "own" | "adopted";
  readonly vmSize: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly osDisk: (AttachedDisk & { readonly osType: OsType }) | null;
  readonly dataDisks: readonly AttachedDisk[];
  readonly machine: MachineConfig;
  /** What the operator asked for last; the guard keeps it so across restarts. */
  readonly desiredPower: "running" | "stopped" | "deallocated";
  /** Adopted VMs: the sockets, for taking them up again after a restart. */
  readonly adoption: { readonly qmpSocket: string; readonly qgaSocket: string | null } | null;
  /** Path of the UEFI variable store, when it has one. */
  readonly nvramPath: string | null;
  /** Neutral Azure members we keep and echo (osProfile without secrets, licenseType, userData, …). */
  readonly extras: Readonly<Record<string, unknown>>;
}

export interface RestorePointCollection extends Tracked {
  readonly kind: "collection";
  /** Azure's restorePointCollectionId: a UUID. */
  readonly uid: string;
  readonly source: { readonly id: ResourceId; readonly location: string };
}

/**
 * Creating → Committing → Succeeded, or Creating → Failed. Succeeded never turns back; any but Committing → Deleting.
 * On the wire Committing shows as Creating.
 */
export type PointState = "Creating" | "Committing" | "Succeeded" | "Failed" | "Deleting";

export interface DiskRestorePoint {
  readonly id: ResourceId;
  readonly name: string;
  readonly diskUid: DiskUid;
  readonly diskId: ResourceId;
  readonly diskName: string;
  /** null for the OS disk. */
  readonly lun: number | null;
  readonly caching: "None" | "ReadOnly" | "ReadWrite";
  readonly osType: OsType | null;
  readonly hyperVGeneration: "V1" | "V2" | null;
  readonly sizeBytes: Bytes;
  readonly rawFileBytes: Bytes | null;
  readonly format: DiskFormat;
  readonly sku: string;
  readonly lineage: string;
  /** Repository tree (see repository/types): opaque here. */
  readonly tree: unknown;
}

/** What one disk of a point cost and how it was read. */
export interface DiskRecord {
  readonly diskId: ResourceId;
  readonly method: "pull" | "push" | "offline";
  readonly kind: "full" | "incremental" | "full-compared";
  /** Why not incremental; null when it was, or for the first point. */
  readonly fullReason: string | null;
  readonly sizeBytes: Bytes;
  readonly bytesRead: Bytes;
  readonly newStoredBytes: Bytes;
  readonly changedChunks: number;
  readonly sampledChunks: number;
  /** Clean extents whose content had changed without a mark: an alarm. */
  readonly sampleMismatches: number;
}

/** The record of a point: the whole truth about it, schema version 1. */
export interface PointRecord {
  readonly schema: 1;
  readonly requestedMode: ConsistencyMode | null;
  readonly reachedMode: ConsistencyMode;
  /** Why that mode, in words: `requested`, `the VM was stopped`, `frozen and thawed 2 file systems`, … */
  readonly modeReason: string;
  readonly startedAt: string;
  readonly pointInTimeAt: string;
  readonly timeToPointInTimeMs: number;
  readonly timeToDurableMs: number;
  readonly transactionMs: number;
  /** How long the guest's writes can have waited: frozen time, or the transaction's round trip. */
  readonly stallMs: number;
  readonly freeze: {
    readonly frozenFilesystems: number;
    readonly thawedFilesystems: number;
    readonly freezeMs: number;
    readonly thawMs: number;
    readonly frozenMs: number;
  } | null;
  readonly hypervisor: {
    readonly qemuVersion: string;
    readonly accelerator: "kvm" | "tcg" | null;
    readonly statusAtInstant: string;
  };
  readonly disks: readonly DiskRecord[];
  readonly excludedDisks: readonly ResourceId[];
  /** What the point does not carry (TPM state, passed-through devices). */
  readonly notCaptured: readonly string[];
  readonly alarms: readonly string[];
}

export interface RestorePoint {
  readonly kind: "point";
  readonly id: ResourceId;
  readonly name: string;
  readonly collectionId: ResourceId;
  readonly uid: PointUid;
  readonly vmUid: VmUid;
  readonly vmId: ResourceId;
  readonly state: PointState;
  readonly requestedMode: ConsistencyMode | null;
  readonly excludeDisks: readonly ResourceId[];
  /** SHA-256 of the canonical body: same name and same body is the same request. */
  readonly bodyHash: string;
  readonly timeCreated: string;
  readonly operationId: OperationId;
  /** The VM as it was, Azure-neutral: for sourceMetadata, and for an equal machine. */
  readonly source: Vm | null;
  readonly disks: readonly DiskRestorePoint[];
  /** Repository tree of the UEFI variable store: opaque here. */
  readonly nvram: unknown;
  readonly record: PointRecord | null;
  readonly manifest: string | null;
  readonly percent: number;
  /** Server time of the point in time once taken: instance view `PointInTime/taken`. */
  readonly takenAt: string | null;
  readonly error: { readonly code: string; readonly message: string } | null;
}

export type Resource = Disk | Vm | RestorePointCollection;

export type OperationKind =
  | "point-create"
  | "point-delete"
  | "collection-delete"
  | "disk-create"
  | "disk-update"
  | "disk-delete"
  | "vm-put"
  | "vm-start"
  | "vm-power-off"
  | "vm-deallocate"
  | "vm-delete"
  | "vm-import"
  | "vm-release"
  | "group-delete"
  | "restore";

export interface Operation {
  readonly id: OperationId;
  readonly kind: OperationKind;
  readonly subscriptionId: string;
  readonly location: string;
  readonly resourceId: ResourceId;
  readonly status: "InProgress" | "Succeeded" | "Failed" | "Canceled";
  readonly startTime: string;
  readonly endTime: string | null;
  readonly percent: number;
  /** What a restart needs to go on: the operation's own parameters. */
  readonly input: unknown;
  /** Ids of what it made (restore: disks, VM), for the final answer. */
  readonly output: unknown;
  readonly error: { readonly code: string; readonly message: string } | null;
}

/** The newest durable state of a disk and the bitmap that records since: base of the next increment. */
export interface Anchor {
  readonly diskUid: DiskUid;
  readonly pointUid: PointUid;
  /** Repository tree: opaque here. */
  readonly tree: unknown;
  readonly lineage: string;
  readonly bitmap: string | null;
  readonly node: string | null;
  readonly sizeBytes: Bytes;
}

/** Write-ahead account of one capture. `plan` is the capture engine's own data; null until it planned. */
export interface Intent {
  readonly capture: string;
  readonly pointUid: PointUid;
  readonly pointKey: IdKey;
  readonly vmUid: VmUid;
  readonly plan: unknown;
  readonly createdAt: string;
  /**
   * The anchors its point brings. Stored with the point's step to Committing, so present means: this point commits,
   * and the capture is to be released; absent means: it goes on or is given up.
   */
  readonly anchors?: readonly Anchor[];
}
