import { type Bytes, bytes, type DiskUid, GiB, idKey, type ResourceId } from "../../src/base/index.ts";
import type { RestorePoint } from "../../src/domain/index.ts";

export const NOW = "2026-11-02T03:04:05.678Z";

/** The point as it is once its operation has ended. `unique` gives a fresh UUID. */
export function finishedPoint(point: RestorePoint, error: RestorePoint["error"], unique: () => string): RestorePoint {
  if (error) return { ...point, state: "Failed", error };
  const attached = point.source
    ? [...(point.source.osDisk ? [point.source.osDisk] : []), ...point.source.dataDisks]
    : [];
  const excluded = new Set(point.excludeDisks.map(idKey));
  const captured = attached.filter((disk) => !excluded.has(idKey(disk.diskId)));
  return {
    ...point,
    state: "Succeeded",
    percent: 100,
    takenAt: NOW,
    manifest: "m".repeat(64),
    disks: captured.map((disk) => {
      const name = `${disk.name}_${unique()}`;
      return {
        id: `${point.id}/diskRestorePoints/${name}` as ResourceId,
        name,
        diskUid: unique() as DiskUid,
        diskId: disk.diskId,
        diskName: disk.name,
        lun: disk.lun,
        caching: disk.caching,
        osType: disk.lun === null ? "Linux" : null,
        hyperVGeneration: disk.lun === null ? "V1" : null,
        sizeBytes: bytes(3 * GiB + 512),
        rawFileBytes: null,
        format: "qcow2",
        sku: "Premium_LRS",
        lineage: unique(),
        tree: null,
      };
    }),
    record: {
      schema: 1,
      requestedMode: point.requestedMode,
      reachedMode: point.requestedMode ?? "FileSystemConsistent",
      modeReason: "frozen and thawed 1 file system",
      startedAt: NOW,
      pointInTimeAt: NOW,
      timeToPointInTimeMs: 40,
      timeToDurableMs: 900,
      transactionMs: 4,
      stallMs: 12.5,
      freeze: { frozenFilesystems: 1, thawedFilesystems: 1, freezeMs: 5, thawMs: 3, frozenMs: 12.5 },
      hypervisor: { qemuVersion: "7.2.22", accelerator: "tcg", statusAtInstant: "running" },
      disks: captured.map((disk) => ({
        diskId: disk.diskId,
        method: "pull",
        kind: "full",
        fullReason: null,
        sizeBytes: bytes(3 * GiB + 512),
        bytesRead: bytes(GiB),
        newStoredBytes: 12_345 as Bytes,
        changedChunks: 16_384,
        sampledChunks: 0,
        sampleMismatches: 0,
      })),
      excludedDisks: point.excludeDisks,
      notCaptured: ["TPM state"],
      alarms: [],
    },
  };
}
