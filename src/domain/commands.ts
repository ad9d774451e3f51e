/** What the API may ask of the domain. Wire shapes end above this line; rules start below it. */
import type { Bytes, OperationId, ResourceId } from "../base/index.ts";
import type {
  ConsistencyMode,
  Disk,
  DiskFormat,
  DiskRestorePoint,
  MachineConfig,
  Operation,
  OsType,
  ResourceGroup,
  RestorePoint,
  RestorePointCollection,
  Tags,
  Vm,
} from "./model.ts";
import type { VmPower } from "./ports.ts";

/** A page of a list. `next` is what the following request gives as `after`; null at the end. */
export interface Page<T> {
  readonly value: readonly T[];
  readonly next: string | null;
}
export interface PageOptions {
  readonly after: string | null;
  readonly limit: number;
}

/** What a change led to. `operation` is null when it was done at once. */
export interface Accepted<T> {
  readonly resource: T;
  readonly operation: Operation | null;
  readonly created: boolean;
}
/** A delete: null when there was nothing (HTTP 204). */
export type Deleted = Operation | "done" | null;

export interface DiskPut {
  readonly id: ResourceId;
  readonly location: string;
  readonly tags: Tags;
  readonly sku: string | null;
  /** Our own choice beside Azure's members, by the tag-free sku table; null: the sku's. */
  readonly format: DiskFormat | null;
  readonly osType: OsType | null;
  readonly hyperVGeneration: "V1" | "V2" | null;
  readonly sizeBytes: Bytes | null;
  readonly creation:
    | { readonly createOption: "Empty" }
    | { readonly createOption: "Import"; readonly sourceUri: string }
    | { readonly createOption: "Restore"; readonly sourceResourceId: ResourceId };
}

export interface VmPut {
  readonly id: ResourceId;
  readonly location: string;
  readonly tags: Tags;
  readonly vmSize: string;
  readonly osDisk: {
    readonly diskId: ResourceId;
    readonly name: string | null;
    readonly osType: OsType;
    readonly caching: "None" | "ReadOnly" | "ReadWrite";
  };
  readonly dataDisks: readonly {
    readonly diskId: ResourceId;
    readonly name: string | null;
    readonly lun: number;
    readonly caching: "None" | "ReadOnly" | "ReadWrite";
  }[];
  readonly extras: Readonly<Record<string, unknown>>;
}

export interface VmImport {
  readonly id: ResourceId;
  readonly location: string;
  readonly tags: Tags;
  readonly qmpSocket: string;
  readonly qgaSocket: string | null;
}

export interface PointCreate {
  readonly id: ResourceId;
  readonly collectionId: ResourceId;
  readonly consistencyMode: ConsistencyMode | null;
  readonly excludeDisks: readonly ResourceId[];
  /** SHA-256 (hex) of the canonical body, made by the API. */
  readonly bodyHash: string;
}

export interface RestoreCommand {
  readonly pointId: ResourceId;
  /** Resource group id that gets the new resources; it must exist. */
  readonly targetGroup: ResourceId;
  /** null: disks only. */
  readonly vmName: string | null;
  /** Source disk id (lower case) → name of the new disk; the others get `{vmName or disk}-{8 hex}`. */
  readonly diskNames: Readonly<Record<string, string>>;
  /** Only these disk restore points; empty: all. With a VM, all are needed. */
  readonly onlyDisks: readonly ResourceId[];
  readonly start: boolean;
  /** Same MACs, serials and machine identity; refused while the source VM runs. */
  readonly keepIdentity: boolean;
}

export interface RestoreOutput {
  readonly disks: readonly ResourceId[];
  readonly vm: ResourceId | null;
  readonly notRestored: readonly string[];
}

/**
 * The domain. Every method throws StillpointErrors that name field and remedy; a refused command changed nothing.
 * What a method returned as done or accepted is durable.
 */
export interface Domain {
  /** Reconciles intents and operations after a start; resolves when each is decided or under way again. */
  recover(): Promise<void>;
  /** Stops taking work, aborts what can go on after the next start, waits (bounded) for the rest. */
  close(): Promise<void>;

  putGroup(group: {
    readonly id: ResourceId;
    readonly location: string;
    readonly tags: Tags;
  }): Promise<Accepted<ResourceGroup>>;
  getGroup(id: ResourceId): Promise<ResourceGroup>;
  listGroups(subscriptionId: string, page: PageOptions): Promise<Page<ResourceGroup>>;
  deleteGroup(id: ResourceId): Promise<Deleted>;
  listSubscriptions(): Promise<readonly string[]>;

  putDisk(command: DiskPut): Promise<Accepted<Disk>>;
  /** Tags and growth only. */
  updateDisk(
    id: ResourceId,
    change: { readonly tags: Tags | null; readonly sizeBytes: Bytes | null },
  ): Promise<Accepted<Disk>>;
  getDisk(id: ResourceId): Promise<Disk>;
  /** `scope`: a subscription's or a group's id. */
  listDisks(scope: ResourceId, page: PageOptions): Promise<Page<Disk>>;
  deleteDisk(id: ResourceId): Promise<Deleted>;

  putVm(command: VmPut): Promise<Accepted<Vm>>;
  importVm(command: VmImport): Promise<Accepted<Vm>>;
  releaseVm(id: ResourceId): Promise<Deleted>;
  getVm(id: ResourceId): Promise<Vm>;
  vmPower(vm: Vm): Promise<VmPower>;
  listVms(scope: ResourceId, page: PageOptions): Promise<Page<Vm>>;
  startVm(id: ResourceId): Promise<Operation>;
  powerOffVm(id: ResourceId, skipShutdown: boolean): Promise<Operation>;
  deallocateVm(id: ResourceId): Promise<Operation>;
  deleteVm(id: ResourceId): Promise<Deleted>;
  getMachine(vmId: ResourceId): Promise<MachineConfig>;
  /** While deallocated, or before the VM exists (kept for its creation). */
  putMachine(vmId: ResourceId, machine: MachineConfig): Promise<MachineConfig>;

  putCollection(command: {
    readonly id: ResourceId;
    readonly location: string;
    readonly tags: Tags;
    readonly sourceId: ResourceId;
  }): Promise<Accepted<RestorePointCollection>>;
  updateCollectionTags(id: ResourceId, tags: Tags): Promise<RestorePointCollection>;
  getCollection(id: ResourceId): Promise<RestorePointCollection>;
  listCollections(scope: ResourceId, page: PageOptions): Promise<Page<RestorePointCollection>>;
  deleteCollection(id: ResourceId): Promise<Deleted>;

  createPoint(command: PointCreate): Promise<Accepted<RestorePoint>>;
  getPoint(id: ResourceId): Promise<RestorePoint>;
  listPoints(collectionId: ResourceId, page: PageOptions): Promise<Page<RestorePoint>>;
  /** While Creating: cancels cleanly (abandon) and deletes. */
  deletePoint(id: ResourceId): Promise<Deleted>;
  /**
   * Cancels a point that is being created and removes it, as deletePoint does. OperationNotAllowed once it has
   * succeeded (decided inside the transaction): giving up must never cost a restorable point.
   */
  abandonPoint(id: ResourceId): Promise<Deleted>;
  getDiskRestorePoint(
    pointId: ResourceId,
    name: string,
  ): Promise<{ readonly point: RestorePoint; readonly disk: DiskRestorePoint }>;

  restore(command: RestoreCommand): Promise<Operation>;

  getOperation(id: OperationId): Promise<Operation>;

  /** For `/readyz` and whoever watches: cheap, never throws. */
  health(): DomainHealth;
}

export interface DomainHealth {
  /**
   * Why nothing may be written to the repository (fenced, or its journal and this catalog disagree); null: all well.
   * Points can still be read and restored, and VMs started and stopped: that is what one needs in such an hour.
   */
  readonly readOnly: { readonly code: string; readonly message: string } | null;
  readonly alarms: readonly string[];
}

/** What the configuration gives the domain. */
export interface DomainSettings {
  readonly region: string;
  readonly host: string;
  /** Names ending the list of what a `vmSize` may be. */
  readonly sizes: Readonly<Record<string, { readonly vcpus: number; readonly memoryMiB: number }>>;
  readonly skus: Readonly<Record<string, { readonly pool: string; readonly format: DiskFormat }>>;
  readonly defaultSku: string;
  /** 500, as Azure's. */
  readonly pointsPerVm: number;
}
