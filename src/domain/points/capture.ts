import { type DiskUid, idKey, StillpointError, withDeadline } from "../../base/index.ts";
import { attachedDisks } from "../attached.ts";
import type { Context } from "../context.ts";
import type { Anchor, AttachedDisk, Disk, Intent, RestorePoint } from "../model.ts";
import { failed } from "../operations/operation.ts";
import type { CaptureHooks, CaptureJob, CatalogReads } from "../ports.ts";
import { commitPoint, settleCommit } from "./commit.ts";
import { clearLeftovers, tidyLater, undoOnce } from "./leftovers.ts";

/** A capture waits this long for the one before it to be released; longer means that the guard is away. */
const TURN_TIMEOUT_MS = 10 * 60_000;

/** Starts the capture of a point that is Creating; `resumed`: goes on with it after a restart of the service. */
export function startCapture(ctx: Context, point: RestorePoint, resumed: boolean): void {
  ctx.tasks.start(captureTask(point), async (signal) => {
    try {
      await inTurn(ctx, point, resumed, signal);
    } catch (error) {
      if (!signal.aborted) await failPoint(ctx, point, error);
    } finally {
      ctx.progress.delete(point.operationId);
    }
  });
}

export function captureTask(point: RestorePoint): string {
  return `capture:${point.uid}`;
}

async function inTurn(ctx: Context, point: RestorePoint, resumed: boolean, signal: AbortSignal): Promise<void> {
  const late = new AbortController();
  const turn = Promise.withResolvers<void>();
  const work = ctx.vmLock.hold(point.vmUid, AbortSignal.any([signal, late.signal]), async () => {
    turn.resolve();
    await capture(ctx, point, resumed, signal);
  });
  work.catch(turn.reject);
  try {
    await withDeadline(TURN_TIMEOUT_MS, "the release of the capture before", () => turn.promise);
  } catch (error) {
    late.abort(error);
  }
  await work;
}

async function capture(ctx: Context, point: RestorePoint, resumed: boolean, signal: AbortSignal): Promise<void> {
  await clearLeftovers(ctx, point.vmUid, point.uid);
  const job = await loadJob(ctx, point);
  if (job === "committing") await settleCommit(ctx, signal);
  else if (job)
    await commitPoint(
      ctx,
      job.intent,
      await ctx.captures.run({ ...job, resumed }, hooksFor(ctx, point), signal),
      signal,
    );
  else return;
  await releaseAfterCommit(ctx, point);
}

async function releaseAfterCommit(ctx: Context, point: RestorePoint): Promise<void> {
  try {
    await undoOnce(ctx, point.uid, "committed");
  } catch (error) {
    ctx.log.warn({ point: point.id, err: error }, "the capture of a durable point could not be released yet");
    tidyLater(ctx, point.uid, point.vmUid);
  }
}

type Job = Omit<CaptureJob, "resumed">;

/** What the capture is to do, from the catalog alone; null when the point is not (any more) to be captured. */
async function loadJob(ctx: Context, accepted: RestorePoint): Promise<Job | "committing" | null> {
  return ctx.catalog.read(async (tx): Promise<Job | "committing" | null> => {
    const point = await tx.pointByUid(accepted.uid);
    if (point?.state === "Committing") return "committing";
    if (point?.state !== "Creating") return null;
    const intent = await tx.intent(point.uid);
    const { source } = point;
    if (!source || !intent) throw withoutIntent(point);
    const current = await tx.vmByUid(point.vmUid);
    const excludes = new Set(point.excludeDisks.map(idKey));
    const all = await loadDisks(tx, point, excludes);
    const disks = all.filter(({ disk }) => !excludes.has(idKey(disk.id)));
    const excluded = all.flatMap(({ disk }) => (excludes.has(idKey(disk.id)) ? [disk] : []));
    const anchors = new Map<DiskUid, Anchor>();
    for (const { disk } of disks) {
      const anchor = await tx.anchor(disk.diskUid);
      if (anchor) anchors.set(disk.diskUid, anchor);
    }
    return { intent, point, vm: current ?? source, disks, excluded, anchors };
  });
}

function withoutIntent(point: RestorePoint): StillpointError {
  if (point.requestedMode === "ApplicationConsistent")
    return new StillpointError(
      "VMRestorePointClientError",
      "An application-consistent point needs scripts or VSS in the guest, which this version does not drive.",
      { remedy: "Leave the mode out for a file-system-consistent point, or use --consistency-mode CrashConsistent." },
    );
  return new StillpointError("VMRestorePointInternalError", "The point was accepted without its write-ahead account.");
}

/** Every attached disk; one that is to be captured must be there, one that is left out need not. */
async function loadDisks(
  tx: CatalogReads,
  point: RestorePoint,
  excludes: ReadonlySet<string>,
): Promise<CaptureJob["disks"]> {
  const disks: { disk: Disk; attached: AttachedDisk }[] = [];
  for (const attached of point.source ? attachedDisks(point.source) : []) {
    const disk = await tx.resource("disk", idKey(attached.diskId));
    if (!disk && excludes.has(idKey(attached.diskId))) continue;
    if (!disk)
      throw new StillpointError("VMRestorePointInternalError", `The disk '${attached.name}' is not there any more.`);
    disks.push({ disk, attached });
  }
  return disks;
}

function hooksFor(ctx: Context, point: RestorePoint): CaptureHooks {
  return {
    savePlan: (plan) =>
      ctx.catalog.transaction(async (tx) => {
        const intent = await tx.intent(point.uid);
        if (!intent) throw new StillpointError("Conflict", `The capture of '${point.name}' has been given up.`);
        await tx.putIntent({ ...intent, plan });
      }),
    taken: (at) =>
      ctx.catalog.transaction(async (tx) => {
        const now = await tx.pointByUid(point.uid);
        if (now?.state === "Creating") await tx.putPoint({ ...now, takenAt: at });
      }),
    progress: (percent) => {
      ctx.progress.set(point.operationId, Math.max(0, Math.min(99, Math.floor(percent))));
    },
  };
}

/** Undoes the capture and says why the point failed. What could not be undone now is undone later. */
async function failPoint(ctx: Context, accepted: RestorePoint, error: unknown): Promise<void> {
  const intent: Intent | null = await ctx.catalog.read((tx) => tx.intent(accepted.uid));
  // Stored with its entry: it commits when the repository is back or the service starts again, and never fails.
  if (intent?.anchors) return;
  ctx.log.warn({ point: accepted.id, err: error }, "restore point failed");
  let undone = true;
  try {
    if (intent) await ctx.captures.giveUp(intent, error instanceof Error ? error.message : String(error));
  } catch (cause) {
    undone = false;
    ctx.log.warn({ point: accepted.id, err: cause }, "the capture of a failed point could not be undone yet");
  }
  await ctx.catalog.transaction(async (tx) => {
    const point = await tx.pointByUid(accepted.uid);
    if (point?.state !== "Creating") return;
    const operation = await tx.operation(point.operationId);
    if (undone) await tx.deleteIntent(point.uid);
    const end = operation && failed(ctx, operation, error);
    await tx.putPoint({ ...point, state: "Failed", percent: 0, error: end?.error ?? null });
    if (end) await tx.putOperation(end);
  });
  if (!undone) tidyLater(ctx, accepted.uid, accepted.vmUid);
}
