/** From a frozen source to a durable manifest: export, copy every disk, make sure nothing moved, seal. */
import { StillpointError } from "../base/index.ts";
import type { Captured, CaptureHooks, CaptureJob } from "../domain/index.ts";
import type { InstantFacts } from "../guard/protocol.ts";
import { connectNbd, type NbdClient } from "../nbd/index.ts";
import type { PointWriter } from "../repository/index.ts";
import { type CaptureDeps, guardAgain, guardStep } from "./deps.ts";
import { type DiskOutcome, storeDisk } from "./disk.ts";
import { reachedMode } from "./mode.ts";
import type { CapturePlan, DiskPlan } from "./plan.ts";
import { awaitPush, openStaging } from "./push.ts";
import { type SealedInstant, sealCaptured } from "./seal.ts";
import { requireTaken } from "./state.ts";
import { closeExportSteps } from "./steps.ts";
import { serve } from "./take.ts";

const CHECK_EVERY_MS = 2_000;
const NBD_REQUEST_MS = 60_000;

/**
 * Copies what was frozen. Everything is durable but the commit when it returns. Throws when the frozen source was lost
 * at any time up to the last byte; what was copied stays in the repository and makes a repeat cheap.
 */
export async function finishCapture(
  deps: CaptureDeps,
  job: CaptureJob,
  plan: CapturePlan,
  writer: PointWriter,
  hooks: CaptureHooks,
  signal: AbortSignal,
): Promise<Captured> {
  const lost = new AbortController();
  const watch = watchSource(deps, plan, lost);
  const both = AbortSignal.any([signal, lost.signal]);
  try {
    const outcomes = await copyAll(deps, job, plan, writer, hooks, both);
    const last = await guardAgain(deps, () => deps.guard.call("capture.check", { capture: plan.capture }));
    requireTaken(last);
    await deps.probe?.("sync", "before");
    await writer.sync();
    await deps.probe?.("sync", "after");
    const { instant } = last;
    if (!instant) throw new StillpointError("VMRestorePointInternalError", "The guard lost the facts of the instant.");
    return await sealCaptured(deps, job, instantOf(job, plan, instant), outcomes, writer);
  } catch (error) {
    if (lost.signal.aborted) throw lost.signal.reason;
    signal.throwIfAborted();
    throw (await whyLost(deps, plan, error)) ?? error;
  } finally {
    watch.stop();
  }
}

const WHY_MS = 5_000;
const WHY_POLL_MS = 200;

/** A copy whose source was taken away says so, and not what its reader met; null when the source is still there. */
async function whyLost(deps: CaptureDeps, plan: CapturePlan, met: unknown): Promise<unknown> {
  const away = met instanceof StillpointError && met.code === "HypervisorUnavailable";
  const endMs = deps.clock.monotonicMs() + (away ? WHY_MS : 0);
  for (;;) {
    const state = await deps.guard.call("capture.check", { capture: plan.capture }).catch(() => null);
    try {
      if (state) requireTaken(state);
    } catch (lost) {
      return lost;
    }
    // The guard may learn of it a moment later than the reader did.
    if (deps.clock.monotonicMs() >= endMs) return null;
    await deps.clock.sleep(WHY_POLL_MS);
  }
}

/** What the instant proved, in the record's words. */
function instantOf(job: CaptureJob, plan: CapturePlan, instant: InstantFacts): SealedInstant {
  const mode = { freeze: plan.freeze, reason: plan.modeReason };
  const reached = reachedMode(job.point.requestedMode, mode, instant.freeze);
  const { freeze } = instant;
  const tenths = (ms: number) => Math.round(ms * 10) / 10;
  return {
    takenAt: instant.takenAt,
    transactionMs: tenths(instant.transactionMs),
    stallMs: tenths(freeze ? freeze.frozenMs : instant.transactionMs),
    freeze: freeze && {
      frozenFilesystems: freeze.frozenFilesystems,
      thawedFilesystems: freeze.thawedFilesystems,
      freezeMs: tenths(freeze.freezeMs),
      thawMs: tenths(freeze.thawMs),
      frozenMs: tenths(freeze.frozenMs),
    },
    reachedMode: reached.mode,
    modeReason: reached.reason,
    hypervisor: {
      qemuVersion: plan.qemuVersion,
      accelerator: plan.accelerator,
      statusAtInstant: instant.statusAtInstant,
    },
    notCaptured: plan.notCaptured,
    alarms: reached.alarm ? [...plan.alarms, reached.alarm] : plan.alarms,
    newBitmaps: new Map(plan.disks.map((disk) => [disk.diskUid, { bitmap: disk.newBitmap, node: disk.node }])),
  };
}

/** Server side first, always: only then may the clients go. */
async function closeExports(deps: CaptureDeps, plan: CapturePlan): Promise<void> {
  for (const step of closeExportSteps(plan))
    await guardStep(deps, step.name, "capture.step", { capture: plan.capture, step });
}

async function copyAll(
  deps: CaptureDeps,
  job: CaptureJob,
  plan: CapturePlan,
  writer: PointWriter,
  hooks: CaptureHooks,
  signal: AbortSignal,
): Promise<readonly DiskOutcome[]> {
  const total = plan.disks.reduce((sum, disk) => sum + disk.sizeBytes, 0);
  let before = 0;
  const outcomes: DiskOutcome[] = [];
  const clients: NbdClient[] = [];
  try {
    const socket = await serve(deps, plan);
    for (const disk of plan.disks) {
      const progress = (done: number) => hooks.progress(Math.min(99, Math.floor(((before + done) * 100) / total)));
      const copy = (nbd: NbdClient) => storeDisk(deps, job, disk, nbd, writer, progress, signal);
      await deps.probe?.(`copy-${disk.scratch.name}`, "before");
      if (disk.method === "pull") {
        const nbd = await connect(socket, disk);
        clients.push(nbd);
        outcomes.push(await copy(nbd));
      } else {
        await awaitPush(deps, plan, disk, signal);
        outcomes.push(await openStaging(deps, plan, disk, copy));
      }
      await deps.probe?.(`copy-${disk.scratch.name}`, "after");
      before += disk.sizeBytes;
    }
    await closeExports(deps, plan);
    return outcomes;
  } catch (error) {
    await closeExports(deps, plan).catch((second: unknown) =>
      deps.log.warn({ capture: plan.capture, err: second }, "exports could not be closed from the server's side"),
    );
    throw error;
  } finally {
    for (const client of clients) await client.close().catch(() => {});
  }
}

async function connect(socket: string | null, disk: DiskPlan): Promise<NbdClient> {
  if (socket === null) throw new StillpointError("InternalError", "A pulled disk has no NBD server.");
  const nbd = await connectNbd({
    socketPath: socket,
    exportName: disk.names.export,
    metaContexts: ["base:allocation", ...(disk.oldBitmap ? [`qemu:dirty-bitmap:${disk.oldBitmap}`] : [])],
    depth: 16,
    requestTimeoutMs: NBD_REQUEST_MS,
  });
  requireSize(nbd.sizeBytes, disk);
  return nbd;
}

/** A frozen source of another size than planned is another disk. */
function requireSize(sizeBytes: number, disk: DiskPlan): void {
  if (sizeBytes !== disk.sizeBytes)
    throw new StillpointError(
      "VMRestorePointInternalError",
      `The frozen source has ${sizeBytes} bytes where the disk has ${disk.sizeBytes}.`,
    );
}

/** Two jobs in one: the guard hears from us, and we learn at once when the frozen source is lost. */
function watchSource(deps: CaptureDeps, plan: CapturePlan, lost: AbortController): { stop(): void } {
  const stopped = new AbortController();
  const loop = async () => {
    while (!stopped.signal.aborted) {
      await deps.clock.sleep(CHECK_EVERY_MS, stopped.signal);
      const state = await deps.guard.call("capture.check", { capture: plan.capture }).catch((error: unknown) => {
        deps.log.warn({ capture: plan.capture, err: error }, "the guard does not answer; the copy goes on");
        return null;
      });
      if (!state) continue;
      try {
        requireTaken(state);
      } catch (error) {
        lost.abort(error);
        return;
      }
    }
  };
  loop().catch(() => {});
  return { stop: () => stopped.abort() };
}
