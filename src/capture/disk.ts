import { type Bytes, type DiskUid, StillpointError } from "../base/index.ts";
import type { Anchor, CaptureJob } from "../domain/index.ts";
import type { NbdClient } from "../nbd/index.ts";
import type { DiskWriter, DiskWriteStats, PointWriter, TreeRef } from "../repository/index.ts";
import { type CopyResult, copyDisk } from "./copy.ts";
import type { CaptureDeps } from "./deps.ts";

/** One disk, copied and packed. */
export interface DiskOutcome {
  readonly diskUid: DiskUid | "nvram";
  readonly method: "pull" | "push" | "offline";
  readonly tree: TreeRef;
  readonly stats: DiskWriteStats;
  readonly copy: CopyResult;
  readonly lineage: string;
}

/** How a disk is to be read, wherever it is read from. */
export interface DiskWay {
  readonly diskUid: DiskUid | "nvram";
  readonly method: "pull" | "push" | "offline";
  readonly kind: "full" | "incremental" | "full-compared";
  readonly fullReason: string | null;
  readonly oldBitmap: string | null;
  readonly sizeBytes: Bytes;
}

/** Copies one disk into the point. An anchor that can no longer be read costs a full read, never the point. */
export async function storeDisk(
  deps: CaptureDeps,
  job: CaptureJob,
  way: DiskWay,
  nbd: NbdClient,
  writer: PointWriter,
  progress: (doneBytes: number) => void,
  signal: AbortSignal,
): Promise<DiskOutcome> {
  const anchor = way.diskUid === "nvram" || way.kind === "full" ? undefined : job.anchors.get(way.diskUid);
  const opened = await openWriter(writer, way, anchor);
  const copy = await copyDisk(
    { nbd, sizeBytes: way.sizeBytes, kind: opened.kind, bitmap: way.oldBitmap },
    opened.disk,
    { random: deps.random, clock: deps.clock, signal, progress },
  );
  const { tree, stats } = await opened.disk.finish();
  return {
    diskUid: way.diskUid,
    method: way.method,
    tree,
    stats,
    copy: { ...copy, fullReason: copy.fullReason ?? opened.fullReason },
    lineage: opened.kind === "full" || !anchor ? deps.random.uuid() : anchor.lineage,
  };
}

interface Opened {
  readonly disk: DiskWriter;
  readonly kind: DiskWay["kind"];
  readonly fullReason: string | null;
}

async function openWriter(writer: PointWriter, way: DiskWay, anchor: Anchor | undefined): Promise<Opened> {
  const { sizeBytes } = way;
  if (!anchor)
    return { disk: await writer.disk({ sizeBytes, anchor: null }), kind: "full", fullReason: way.fullReason };
  try {
    return {
      disk: await writer.disk({ sizeBytes, anchor: anchor.tree as TreeRef }),
      kind: way.kind,
      fullReason: way.fullReason,
    };
  } catch (error) {
    if (!(error instanceof StillpointError) || error.code !== "RepositoryDamaged") throw error;
    return {
      disk: await writer.disk({ sizeBytes, anchor: null }),
      kind: "full",
      fullReason: "the point before is damaged in the repository",
    };
  }
}
