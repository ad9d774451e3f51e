/** What capture, recovery and the programs see of the repository. The format behind it: docs/repository-format.md. */
import type { Brand, Bytes, Clock, DiskUid, PointUid, Random } from "../base/index.ts";

/** Lower-case hex SHA-256 of a manifest's stored bytes; its name in the repository. */
export type ManifestHash = Brand<string, "ManifestHash">;
/** The root of one disk's persistent tree: opaque, storable as JSON, valid as long as something keeps it alive. */
export interface TreeRef {
  readonly domain: string;
  /** Hex id of the root node; the all-zero disk has `zero`. */
  readonly root: string;
  /** QEMU's virtual size: a multiple of 512. */
  readonly sizeBytes: Bytes;
}

/** One disk in a manifest. */
export interface ManifestDisk {
  readonly diskUid: DiskUid;
  readonly tree: TreeRef;
  /** Random id kept through increments; a new one when the disk was read in full without an anchor. */
  readonly lineage: string;
  readonly diskRestorePointId: string;
}

/** Small opaque blobs stored with the point (NVRAM): name → tree of a disk-like object. */
export interface PointManifest {
  readonly point: PointUid;
  readonly pointId: string;
  readonly collectionId: string;
  readonly createdAt: string;
  readonly disks: readonly ManifestDisk[];
  readonly nvram: TreeRef | null;
  /** The Azure-shaped resource and our record, as JSON values: enough to rebuild the catalog's rows. */
  readonly resource: unknown;
  readonly record: unknown;
  readonly origin: string | null;
  readonly lockedUntil: string | null;
  readonly expiresAt: string | null;
  readonly recordSchema: number;
}

export type JournalKind =
  | "format"
  | "domain-key"
  | "collection-put"
  | "collection-delete"
  | "commit"
  | "delete"
  | "lock"
  | "extend"
  | "checkpoint";

/** Where the journal ends: the number of the newest entry and the hash that the next one must name. */
export interface JournalHead {
  readonly number: number;
  readonly hash: string;
}

export interface JournalEntry {
  readonly number: number;
  readonly previousHash: string;
  readonly kind: JournalKind;
  /** JSON. For `commit`: {manifest, point, pointId, collectionId}; for `collection-put`: the collection resource. */
  readonly payload: unknown;
  readonly at: string;
  readonly epoch: number;
}

/** An entry ready to be published: the bytes are final, so storing them first makes a restart roll forward. */
export interface SealedEntry {
  readonly number: number;
  readonly hash: string;
  readonly bytes: Uint8Array;
}

export interface DiskWriteStats {
  readonly bytesRead: Bytes;
  /** Chunks that differ from the anchor. */
  readonly changedChunks: number;
  /** Bytes this disk added to the repository: frames, nodes and pack overhead. */
  readonly newStoredBytes: Bytes;
}

/** Fills one disk of a point. Starts as its anchor (or all zeroes); what is not written stays so. */
export interface DiskWriter {
  /**
   * `data` (a multiple of 64 KiB, or up to the disk's end) at `offset` (a multiple of 64 KiB). Resolves when the
   * buffer may be used again; that is the back-pressure. Any order, many in flight (≥ 8), ranges never overlap. Runs of
   * 1 MiB are best (only neighbours in one call share a frame); whole chunks in a SharedArrayBuffer are not copied.
   */
  write(offset: Bytes, data: Uint8Array): Promise<void>;
  /** The range reads as zeroes: same alignment, no bytes. */
  zero(offset: Bytes, length: Bytes): Promise<void>;
  /** Whether the anchor holds exactly `data` at `offset`: for sampling. False for a damaged range. */
  matchesAnchor(offset: Bytes, data: Uint8Array): Promise<boolean>;
  /** Ranges of the anchor that cannot be read any more; they must be written anew. Cheap: known damage only. */
  damagedRanges(): Promise<readonly { readonly offset: Bytes; readonly length: Bytes }[]>;
  /** All writes done: the tree's nodes are packed. Durable only after {@link PointWriter.sync}. */
  finish(): Promise<{ readonly tree: TreeRef; readonly stats: DiskWriteStats }>;
}

/** One point being written. Owns a pin against collection until committed or aborted. */
export interface PointWriter {
  disk(options: {
    readonly sizeBytes: Bytes;
    /**
     * A missing or damaged anchor root throws RepositoryDamaged, an anchor larger than the disk InvalidParameter: the
     * caller then starts without one. A smaller one is fine: the disk has grown by zeroes.
     */
    readonly anchor: TreeRef | null;
  }): Promise<DiskWriter>;
  /** Every pack written so far is durable when it returns. A failed fsync is final: the point must fail. */
  sync(): Promise<void>;
  /** After sync: writes the manifest once, durable when it returns. */
  writeManifest(manifest: PointManifest): Promise<ManifestHash>;
  /** After the commit or the failure: lets the pin go. What was written stays and makes a repeat cheap. */
  close(): Promise<void>;
}

/** An extent of a disk at a point: present data, or zeroes. Sorted, adjoining, covering the whole disk. */
export interface Extent {
  readonly offset: Bytes;
  readonly length: Bytes;
  readonly zero: boolean;
}

/** Reads one disk of a point. Every byte is verified against its chunk id before it is handed out. */
export interface DiskReader {
  readonly sizeBytes: Bytes;
  extents(): AsyncIterable<Extent>;
  /** Any range within the disk. Throws RepositoryDamaged naming the object. */
  read(offset: Bytes, length: Bytes): Promise<Buffer>;
  /**
   * All present data in disk order, runs of ≤ 1 MiB, decrypted and verified by the worker pool with read-ahead.
   * The buffer belongs to the consumer.
   */
  stream(signal?: AbortSignal): AsyncIterable<{ readonly offset: Bytes; readonly data: Uint8Array }>;
  close(): Promise<void>;
}

export interface DamageReport {
  readonly object: string;
  readonly problem: string;
  /**
   * Points and disks that need it and have no other copy. `nvram` stands for the UEFI variables; `*` for all disks of a
   * point whose manifest cannot be read.
   */
  readonly breaks: readonly { readonly pointId: string; readonly diskUid: string }[];
}

export interface VerifyReport {
  readonly objectsRead: number;
  readonly bytesRead: Bytes;
  readonly damage: readonly DamageReport[];
}

export interface CollectReport {
  readonly packsKept: number;
  readonly packsCondemned: number;
  readonly packsSwept: number;
  readonly freedBytes: Bytes;
}

export interface Repository {
  readonly repositoryId: string;
  readonly region: string;
  beginPoint(): Promise<PointWriter>;
  openDisk(tree: TreeRef): Promise<DiskReader>;
  /** Verified and unsealed. Throws RepositoryDamaged. */
  readManifest(hash: ManifestHash): Promise<PointManifest>;
  /** Pure: seals the entry that follows `head`. */
  sealEntry(head: JournalHead, kind: JournalKind, payload: unknown): SealedEntry;
  /**
   * Creates `journal/{number}` exclusively; durable with its directory when it returns. The same bytes there already:
   * fine. Other bytes there: RepositoryFenced, and this process must stop writing.
   */
  publishEntry(entry: SealedEntry): Promise<void>;
  /** All entries, in order, chain and seals verified. Throws RepositoryDamaged at the first that does not follow. */
  readJournal(from?: number): AsyncIterable<JournalEntry & { readonly hash: string }>;
  journalHead(): Promise<JournalHead>;
  /**
   * Keeps what the live manifests, the given trees (anchors, pins), open writers and readers need, and what the journal
   * has committed and not deleted; condemns wholly dead packs and sweeps those condemned before which every older
   * writer has finished without. The roots must have been listed after the last collection ended; a point committed
   * between listing and collecting is safe. Throws RepositoryDamaged, having swept nothing, when a live node cannot be
   * read: what hangs below it is unknown.
   */
  collect(roots: {
    readonly manifests: readonly ManifestHash[];
    readonly trees: readonly TreeRef[];
  }): Promise<CollectReport>;
  /** Reads everything. Lists all damage, never stops at the first. */
  verify(
    roots: {
      readonly points: readonly { readonly pointId: string; readonly manifest: ManifestHash }[];
    },
    progress?: (objectsDone: number, objectsTotal: number) => void,
  ): Promise<VerifyReport>;
  close(): Promise<void>;
}

export interface RepositoryOptions {
  readonly path: string;
  /** Holds the repository key; outside `path`. */
  readonly keyFile: string;
  readonly region: string;
  /** Where the rebuildable chunk index may be kept. */
  readonly cacheDir: string;
  /** Worker threads; default: the number of cores. */
  readonly workers: number;
  readonly clock: Clock;
  readonly random: Random;
}
