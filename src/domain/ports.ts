/**
 * What the domain needs from outside. Contracts stand above each port; one conformance suite runs on every adapter.
 */
import type { Bytes, DiskUid, IdKey, OperationId, PointUid, ResourceId, VmUid } from "../base/index.ts";
import type {
  Anchor,
  AttachedDisk,
  Disk,
  DiskFormat,
  DiskRecord,
  DiskRestorePoint,
  Intent,
  MachineConfig,
  Operation,
  PointRecord,
  Resource,
  ResourceGroup,
  RestorePoint,
  Vm,
} from "./model.ts";

// ------------------------------------------------------------------ catalog

/**
 * Everything inside `transaction` happens at once or not at all; it is durable (fsync) when the promise resolves.
 * Transactions run one after another. The function must not wait for anything but the transaction's own calls.
 * Reads outside see the last committed state.
 */
export interface Catalog {
  transaction<T>(work: (tx: CatalogTx) => Promise<T>): Promise<T>;
  read<T>(work: (tx: CatalogReads) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

export interface PageRequest {
  /** Keys after this one, in key order: stable while rows come and go. */
  readonly after: IdKey | null;
  readonly limit: number;
}

export interface JournalRow {
  readonly number: number;
  readonly hash: string;
  readonly bytes: Uint8Array;
  readonly published: boolean;
}

export interface CatalogReads {
  group(key: IdKey): Promise<ResourceGroup | null>;
  groups(subscriptionId: string, page: PageRequest): Promise<readonly ResourceGroup[]>;
  subscriptions(): Promise<readonly string[]>;
  resource<K extends Resource["kind"]>(kind: K, key: IdKey): Promise<Extract<Resource, { kind: K }> | null>;
  /** Those whose key starts with `prefix` (a subscription's or a group's key and a slash). */
  resources<K extends Resource["kind"]>(
    kind: K,
    prefix: string,
    page: PageRequest,
  ): Promise<readonly Extract<Resource, { kind: K }>[]>;
  diskByUid(uid: DiskUid): Promise<Disk | null>;
  diskByPath(path: string): Promise<Disk | null>;
  vmByUid(uid: VmUid): Promise<Vm | null>;
  collectionsOfVm(vmKey: IdKey): Promise<readonly import("./model.ts").RestorePointCollection[]>;
  point(key: IdKey): Promise<RestorePoint | null>;
  points(collectionKey: IdKey, page: PageRequest): Promise<readonly RestorePoint[]>;
  /** Points of the VM that count towards its limit: all but Failed. */
  countPoints(vm: VmUid): Promise<number>;
  /** Points being created for the VM (Creating or Committing). */
  creating(vm: VmUid): Promise<readonly RestorePoint[]>;
  liveManifests(): Promise<readonly { readonly pointId: ResourceId; readonly manifest: string }[]>;
  operation(id: OperationId): Promise<Operation | null>;
  openOperations(): Promise<readonly Operation[]>;
  intents(): Promise<readonly Intent[]>;
  intent(capture: string): Promise<Intent | null>;
  anchor(disk: DiskUid): Promise<Anchor | null>;
  anchors(): Promise<readonly Anchor[]>;
  /** Points that a restore reads right now. */
  pins(): Promise<readonly { readonly point: PointUid; readonly operation: OperationId }[]>;
  journalHead(): Promise<{ readonly number: number; readonly hash: string } | null>;
  unpublished(): Promise<readonly JournalRow[]>;
  /** Hash of the entry with this number, null when the catalog does not know it. */
  journalHash(number: number): Promise<string | null>;
  setting(name: string): Promise<string | null>;
  pointByUid(uid: PointUid): Promise<RestorePoint | null>;
  /** Points that are neither Succeeded nor Failed. */
  unsettledPoints(): Promise<readonly RestorePoint[]>;
  intentsOfVm(vm: VmUid): Promise<readonly Intent[]>;
  openOperationsOf(resource: IdKey): Promise<readonly Operation[]>;
}

export interface CatalogTx extends CatalogReads {
  putGroup(group: ResourceGroup): Promise<void>;
  deleteGroup(key: IdKey): Promise<void>;
  putResource(resource: Resource): Promise<void>;
  deleteResource(kind: Resource["kind"], key: IdKey): Promise<void>;
  putPoint(point: RestorePoint): Promise<void>;
  deletePoint(key: IdKey): Promise<void>;
  putOperation(operation: Operation): Promise<void>;
  putIntent(intent: Intent): Promise<void>;
  deleteIntent(capture: string): Promise<void>;
  putAnchor(anchor: Anchor): Promise<void>;
  deleteAnchor(disk: DiskUid): Promise<void>;
  pin(point: PointUid, operation: OperationId): Promise<void>;
  unpin(operation: OperationId): Promise<void>;
  appendJournal(row: JournalRow): Promise<void>;
  /** From now on the repository keeps the entry: its bytes are dropped here, its hash stays. */
  markPublished(number: number): Promise<void>;
  /** null takes it away. */
  putSetting(name: string, value: string | null): Promise<void>;
}

// ------------------------------------------------------------------ journal of the repository

/** Seals and publishes journal entries; the repository's side of a commit. See repository/types. */
export interface Journal {
  seal(
    head: { readonly number: number; readonly hash: string },
    kind: "collection-put" | "collection-delete" | "commit" | "delete",
    payload: unknown,
  ): { readonly number: number; readonly hash: string; readonly bytes: Uint8Array };
  /** Durable when it returns; repeatable with the same bytes; RepositoryFenced when the number is taken by others. */
  publish(entry: { readonly number: number; readonly hash: string; readonly bytes: Uint8Array }): Promise<void>;
}

/** A published entry as the repository hands it out: chain and seal verified. */
export interface JournalItem {
  readonly number: number;
  readonly hash: string;
  readonly previousHash: string;
  readonly kind: string;
  readonly payload: unknown;
}

/** What the domain reads from the repository: to compare heads at start, and to rebuild a catalog. */
export interface RepositoryReads {
  journalHead(): Promise<{ readonly number: number; readonly hash: string }>;
  /** From that number on (default 1), in order; throws RepositoryDamaged at the first that does not follow. */
  readJournal(from?: number): AsyncIterable<JournalItem>;
  /** Verified and unsealed; RepositoryDamaged when missing or broken. */
  readManifest(hash: string): Promise<unknown>;
}

// ------------------------------------------------------------------ captures

/** What a capture is asked to do. Fixed when the point is accepted, but for `plan`, which the engine fills. */
export interface CaptureJob {
  readonly intent: Intent;
  readonly point: RestorePoint;
  readonly vm: Vm;
  /** Disks to capture with their attachment, OS disk first. */
  readonly disks: readonly { readonly disk: Disk; readonly attached: AttachedDisk }[];
  /** Attached disks that the request left out. */
  readonly excluded: readonly Disk[];
  readonly anchors: ReadonlyMap<DiskUid, Anchor>;
  /** A former life of the service accepted it: what had not reached its point in time then must fail, not start late. */
  readonly resumed: boolean;
}

/** Called by the engine while it works. Each is durable when it returns. */
export interface CaptureHooks {
  /** Before the first command that changes anything in QEMU. */
  savePlan(plan: unknown): Promise<void>;
  taken(at: string): Promise<void>;
  progress(percent: number): void;
}

/** A capture whose bytes and manifest are durable: only the commit is missing. */
export interface Captured {
  readonly manifest: string;
  readonly disks: readonly DiskRestorePoint[];
  readonly nvram: unknown;
  readonly record: PointRecord;
  /** New anchors, to be stored by the transaction that makes the point Succeeded. */
  readonly anchors: readonly Anchor[];
}

/**
 * All three are repeatable after a crash at any instruction; `run` with a planned intent goes on where the guard and
 * the repository show that it can, and throws a StillpointError when the point must fail (it has then undone itself).
 * A run whose signal aborts stops soon, undoes nothing and rejects with the signal's reason: the caller decides
 * whether the capture goes on after the next start or is given up. `release` and `giveUp` of a capture that left no
 * trace do nothing.
 */
export interface Captures {
  run(job: CaptureJob, hooks: CaptureHooks, signal: AbortSignal): Promise<Captured>;
  /** After the commit: closes exports, jobs, fleeces and the old bitmaps. */
  release(intent: Intent): Promise<void>;
  /** Undoes it: the guest's QEMU is as before, the old anchors stay usable. */
  giveUp(intent: Intent, reason: string): Promise<void>;
}
export type { DiskRecord };

// ------------------------------------------------------------------ machines

export interface VmPower {
  /** `running`, `stopped` (guest off, process there), `paused`, `deallocated`, `unreachable`. */
  readonly power: "running" | "stopped" | "paused" | "deallocated" | "unreachable";
  readonly reason: string | null;
  readonly agent: "connected" | "silent" | "absent" | "unknown";
}

/** What an adoption found in a foreign QEMU. */
export interface Adopted {
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly machine: Omit<MachineConfig, "disks">;
  readonly disks: readonly {
    readonly path: string;
    readonly format: DiskFormat;
    readonly sizeBytes: Bytes;
    readonly bus: "virtio-blk" | "virtio-scsi";
    readonly serial: string;
    readonly iothread: boolean;
    readonly bootIndex: number | null;
    readonly node: string;
    readonly device: string;
  }[];
  readonly nvramPath: string | null;
}

/** Power over VMs, through the guard. All are repeatable; errors are StillpointErrors with a remedy. */
export interface Machines {
  start(vm: Vm, disks: readonly Disk[]): Promise<void>;
  powerOff(vm: VmUid, skipShutdown: boolean): Promise<void>;
  /** Ends the guest; QEMU goes when no capture needs it. */
  deallocate(vm: VmUid): Promise<void>;
  forget(vm: VmUid): Promise<void>;
  power(vm: VmUid): Promise<VmPower>;
  adopt(vm: VmUid, qmpSocket: string, qgaSocket: string | null): Promise<Adopted>;
  /** Removes our bitmaps (names given) and every other trace, then lets the sockets go. */
  release(vm: VmUid, anchors: readonly Anchor[]): Promise<void>;
  /** Tells a running QEMU that a disk has grown. */
  resizeOnline(vm: VmUid, disk: Disk, sizeBytes: Bytes): Promise<void>;
}

// ------------------------------------------------------------------ images

export interface ImageFacts {
  readonly format: DiskFormat;
  readonly sizeBytes: Bytes;
  readonly rawFileBytes: Bytes | null;
}

/** Disk images in the host's pools. Paths are confined: no symlink, no foreign-writable component. */
export interface Images {
  /** Absolute path of `pool://{host}/{pool}/{relative}`; InvalidParameter with the reason otherwise. */
  resolve(uri: string): Promise<string>;
  /** Whether the path (as a foreign QEMU reports it) lies inside a pool. */
  confine(path: string): Promise<string>;
  /** The path a new disk gets in the pool of its sku. */
  newPath(uid: DiskUid, sku: string, format: DiskFormat): string;
  /** By our own bounded header parser; refuses backing files, data files, encryption. `format` from the extension. */
  inspect(path: string): Promise<ImageFacts>;
  /** Durable under its final name when it returns. Repeatable. */
  createEmpty(path: string, format: DiskFormat, sizeBytes: Bytes): Promise<void>;
  /** Of an image that nothing has open. Repeatable; durable when it returns. */
  grow(path: string, format: DiskFormat, sizeBytes: Bytes): Promise<void>;
  /** An image, or a variable store of `createNvram`. Missing is fine. Durable when it returns. */
  remove(path: string): Promise<void>;
  /** A UEFI variable store for a new VM: a copy of the firmware's template. Returns its path. Repeatable. */
  createNvram(vm: VmUid): Promise<string>;
  /** Whether this host's firmware can use a variable store of that size: a store belongs to one layout of firmware. */
  nvramFits(sizeBytes: Bytes): Promise<boolean>;
}

// ------------------------------------------------------------------ restores

/** Writes the bytes of a point into new images. Nothing appears under the final name before it is whole and fsynced. */
export interface Restores {
  restoreDisk(
    source: DiskRestorePoint,
    target: { readonly path: string; readonly format: DiskFormat; readonly sizeBytes: Bytes },
    progress: (fraction: number) => void,
    signal: AbortSignal,
  ): Promise<void>;
  /** Writes the point's UEFI variable store for a new VM; returns its path. Repeatable. */
  restoreNvram(tree: unknown, vm: VmUid): Promise<string>;
  /** Of the point's UEFI variable store. */
  nvramSizeBytes(tree: unknown): Bytes;
}

// ------------------------------------------------------------------ log

/** Structured log lines, never with secrets in them. A pino logger is one. */
export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
