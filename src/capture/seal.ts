/** The record of a point and its manifest: what is kept for ever, from facts alone. */
import type { Bytes, DiskUid, ResourceId } from "../base/index.ts";
import type {
  Anchor,
  AttachedDisk,
  Captured,
  CaptureJob,
  Disk,
  DiskRecord,
  DiskRestorePoint,
  PointRecord,
} from "../domain/index.ts";
import type { ManifestDisk, PointWriter } from "../repository/index.ts";
import type { CaptureDeps } from "./deps.ts";
import type { DiskOutcome } from "./disk.ts";

/** What is known of the moment the point was taken at. */
export interface SealedInstant
  extends Pick<
    PointRecord,
    "transactionMs" | "stallMs" | "freeze" | "reachedMode" | "modeReason" | "hypervisor" | "notCaptured" | "alarms"
  > {
  readonly takenAt: string;
  /** Per disk the bitmap that records from this instant on; null where none does. */
  readonly newBitmaps: ReadonlyMap<DiskUid | "nvram", { readonly bitmap: string | null; readonly node: string }>;
}

/** Writes the manifest, durable when it returns. The packs it names must be durable already. */
export async function sealCaptured(
  deps: CaptureDeps,
  job: CaptureJob,
  instant: SealedInstant,
  outcomes: readonly DiskOutcome[],
  writer: PointWriter,
): Promise<Captured> {
  const nvram = outcomes.find((outcome) => outcome.diskUid === "nvram")?.tree ?? null;
  const pairs = job.disks.map(({ disk, attached }) => {
    const outcome = outcomes.find((candidate) => candidate.diskUid === disk.diskUid);
    if (!outcome) throw new Error(`disk ${disk.diskUid} was not copied`);
    return { disk, attached, outcome };
  });
  const disks = pairs.map(({ disk, attached, outcome }) => diskPoint(deps, job, disk, attached, outcome));
  const record = makeRecord(deps, job, instant, pairs);
  await deps.probe?.("manifest", "before");
  const manifest = await writer.writeManifest({
    point: job.point.uid,
    pointId: job.point.id,
    collectionId: job.point.collectionId,
    createdAt: job.point.timeCreated,
    disks: disks.map(
      (disk): ManifestDisk => ({
        diskUid: disk.diskUid,
        tree: disk.tree as ManifestDisk["tree"],
        lineage: disk.lineage,
        diskRestorePointId: disk.id,
      }),
    ),
    nvram,
    resource: { ...job.point, takenAt: instant.takenAt, source: job.vm, disks, nvram, record: null },
    record,
    origin: null,
    lockedUntil: null,
    expiresAt: null,
    recordSchema: record.schema,
  });
  await deps.probe?.("manifest", "after");
  return {
    manifest,
    disks,
    nvram,
    record,
    anchors: pairs.flatMap(({ disk, outcome }) => newAnchor(job, instant, disk, outcome)),
  };
}

interface Pair {
  readonly disk: Disk;
  readonly attached: AttachedDisk;
  readonly outcome: DiskOutcome;
}

function diskPoint(
  deps: CaptureDeps,
  job: CaptureJob,
  disk: Disk,
  attached: AttachedDisk,
  outcome: DiskOutcome,
): DiskRestorePoint {
  const name = `${disk.name}_${deps.random.uuid()}`;
  return {
    id: `${job.point.id}/diskRestorePoints/${name}` as ResourceId,
    name,
    diskUid: disk.diskUid,
    diskId: disk.id,
    diskName: disk.name,
    lun: attached.lun,
    caching: attached.caching,
    osType: attached.lun === null ? (job.vm.osDisk?.osType ?? disk.osType) : null,
    hyperVGeneration: attached.lun === null ? (job.vm.machine.firmware === "uefi" ? "V2" : "V1") : null,
    sizeBytes: outcome.tree.sizeBytes,
    rawFileBytes: disk.rawFileBytes,
    format: disk.format,
    sku: disk.sku,
    lineage: outcome.lineage,
    tree: outcome.tree,
  };
}

function makeRecord(deps: CaptureDeps, job: CaptureJob, instant: SealedInstant, pairs: readonly Pair[]): PointRecord {
  const startedMs = Date.parse(job.point.timeCreated);
  const sampleAlarms = pairs.flatMap(({ disk, outcome }) =>
    outcome.copy.sample.mismatches > 0
      ? [
          `disk '${disk.name}': ${outcome.copy.sample.mismatches} of ${outcome.copy.sample.chunks} sampled chunks had changed without a mark`,
        ]
      : [],
  );
  return {
    schema: 1,
    requestedMode: job.point.requestedMode,
    reachedMode: instant.reachedMode,
    modeReason: instant.modeReason,
    startedAt: job.point.timeCreated,
    pointInTimeAt: instant.takenAt,
    timeToPointInTimeMs: Math.max(0, Date.parse(instant.takenAt) - startedMs),
    timeToDurableMs: Math.max(0, deps.clock.now().getTime() - startedMs),
    transactionMs: instant.transactionMs,
    stallMs: instant.stallMs,
    freeze: instant.freeze,
    hypervisor: instant.hypervisor,
    disks: pairs.map(diskRecord),
    excludedDisks: job.point.excludeDisks,
    notCaptured: instant.notCaptured,
    alarms: [...instant.alarms, ...sampleAlarms],
  };
}

function diskRecord({ disk, outcome }: Pair): DiskRecord {
  return {
    diskId: disk.id,
    method: outcome.method,
    kind: outcome.copy.kind,
    fullReason: outcome.copy.fullReason,
    sizeBytes: outcome.tree.sizeBytes as Bytes,
    bytesRead: outcome.copy.bytesRead,
    newStoredBytes: outcome.stats.newStoredBytes,
    changedChunks: outcome.stats.changedChunks,
    sampledChunks: outcome.copy.sample.chunks,
    sampleMismatches: outcome.copy.sample.mismatches,
  };
}

/**
 * The base of the next increment. A capture that started no bitmap leaves an older anchor with a living bitmap alone:
 * that one still names every write since its own point.
 */
function newAnchor(job: CaptureJob, instant: SealedInstant, disk: Disk, outcome: DiskOutcome): readonly Anchor[] {
  const started = instant.newBitmaps.get(disk.diskUid);
  const older = job.anchors.get(disk.diskUid);
  if (!started?.bitmap && older?.bitmap && outcome.method === "offline") return [];
  return [
    {
      diskUid: disk.diskUid,
      pointUid: job.point.uid,
      tree: outcome.tree,
      lineage: outcome.lineage,
      bitmap: started?.bitmap ?? null,
      node: started?.node ?? null,
      sizeBytes: outcome.tree.sizeBytes,
    },
  ];
}
