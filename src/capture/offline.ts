/** A point of a VM without a QEMU process: its images lie still, and an open reader keeps them so. */

import type { DiskUid } from "../base/index.ts";
import { StillpointError } from "../base/index.ts";
import type { Captured, CaptureHooks, CaptureJob } from "../domain/index.ts";
import { connectNbd, type NbdClient } from "../nbd/index.ts";
import type { PointWriter } from "../repository/index.ts";
import type { CaptureDeps } from "./deps.ts";
import { type DiskOutcome, type DiskWay, storeDisk } from "./disk.ts";
import { decideMode } from "./mode.ts";
import { sealCaptured } from "./seal.ts";
import type { StoredPlan } from "./state.ts";

interface Source {
  readonly way: DiskWay;
  readonly nbd: NbdClient;
  close(): Promise<void>;
}

/**
 * All images are opened before the first byte is read: their shared locks hold a starting QEMU off until the last is.
 * Each disk is read in full and compared with its anchor; the anchor's own bitmap stays valid, since nothing was written.
 */
export async function captureOffline(
  deps: CaptureDeps,
  job: CaptureJob,
  writer: PointWriter,
  hooks: CaptureHooks,
  signal: AbortSignal,
): Promise<Captured> {
  const mode = decideMode(job.point.requestedMode, null);
  const stored: StoredPlan = { way: "offline" };
  await hooks.savePlan(stored);
  const sources: Source[] = [];
  try {
    for (const image of imagesOf(job)) sources.push(await openSource(deps, job, image));
    const takenAt = deps.clock.now().toISOString();
    await hooks.taken(takenAt);
    const outcomes = await copyAll(deps, job, sources, writer, hooks, signal);
    await deps.probe?.("sync", "before");
    await writer.sync();
    await deps.probe?.("sync", "after");
    return await sealCaptured(
      deps,
      job,
      {
        takenAt,
        transactionMs: 0,
        stallMs: 0,
        freeze: null,
        reachedMode: "CrashConsistent",
        modeReason: mode.reason,
        hypervisor: { qemuVersion: "none", accelerator: null, statusAtInstant: "deallocated" },
        notCaptured: [],
        alarms: [],
        newBitmaps: new Map(),
      },
      outcomes,
      writer,
    );
  } finally {
    for (const source of sources) await source.close();
  }
}

interface OfflineImage {
  readonly diskUid: DiskUid | "nvram";
  readonly path: string;
  readonly format: "raw" | "qcow2";
}

function imagesOf(job: CaptureJob): readonly OfflineImage[] {
  const disks = job.disks.map(({ disk }): OfflineImage => {
    if (disk.path === null)
      throw new StillpointError("OperationNotAllowed", `Disk '${disk.name}' has no image yet.`, {
        target: "properties.excludeDisks",
        remedy: "Exclude it with excludeDisks, or wait until it is there.",
      });
    return { diskUid: disk.diskUid, path: disk.path, format: disk.format };
  });
  const nvram = job.vm.nvramPath;
  return nvram === null ? disks : [...disks, { diskUid: "nvram", path: nvram, format: "raw" }];
}

async function openSource(deps: CaptureDeps, job: CaptureJob, image: OfflineImage): Promise<Source> {
  const daemon = await deps.offline.open({ path: image.path, format: image.format, writable: false });
  try {
    const nbd = await connectNbd({
      socketPath: daemon.socketPath,
      exportName: daemon.exportName,
      metaContexts: ["base:allocation"],
      depth: 16,
      requestTimeoutMs: 60_000,
    });
    return { way: wayOf(job, image, nbd.sizeBytes), nbd, close: () => nbd.close().then(() => daemon.close()) };
  } catch (error) {
    await daemon.close();
    throw error;
  }
}

function wayOf(job: CaptureJob, image: OfflineImage, sizeBytes: number): DiskWay {
  const anchor = image.diskUid === "nvram" ? undefined : job.anchors.get(image.diskUid);
  const compared = anchor !== undefined && anchor.sizeBytes === sizeBytes;
  return {
    diskUid: image.diskUid,
    method: "offline",
    kind: compared ? "full-compared" : "full",
    fullReason: compared ? "the virtual machine was deallocated" : anchor ? "the disk's size has changed" : null,
    oldBitmap: null,
    sizeBytes: sizeBytes as DiskWay["sizeBytes"],
  };
}

async function copyAll(
  deps: CaptureDeps,
  job: CaptureJob,
  sources: readonly Source[],
  writer: PointWriter,
  hooks: CaptureHooks,
  signal: AbortSignal,
): Promise<readonly DiskOutcome[]> {
  const total = sources.reduce((sum, { way }) => sum + way.sizeBytes, 0);
  const outcomes: DiskOutcome[] = [];
  let before = 0;
  for (const { way, nbd } of sources) {
    const progress = (done: number) => hooks.progress(Math.min(99, Math.floor(((before + done) * 100) / total)));
    outcomes.push(await storeDisk(deps, job, way, nbd, writer, progress, signal));
    before += way.sizeBytes;
  }
  return outcomes;
}
