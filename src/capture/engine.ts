/** The domain's `Captures` port over guard, NBD and repository. */
import { StillpointError } from "../base/index.ts";
import type { Captured, CaptureHooks, CaptureJob, Captures, Intent } from "../domain/index.ts";
import type { CaptureId } from "../guard/protocol.ts";
import { atStep, type CaptureDeps } from "./deps.ts";
import { finishCapture } from "./finish.ts";
import { captureOffline } from "./offline.ts";
import { interrupted, requireTaken, type StoredPlan, stateOf } from "./state.ts";
import { releaseSteps } from "./steps.ts";
import { takePointInTime } from "./take.ts";

export function createCaptures(deps: CaptureDeps): Captures {
  return {
    run: (job, hooks, signal) => run(deps, job, hooks, signal),
    release: (intent) => release(deps, intent),
    giveUp: (intent, reason) => giveUp(deps, intent, reason),
  };
}

async function run(deps: CaptureDeps, job: CaptureJob, hooks: CaptureHooks, signal: AbortSignal): Promise<Captured> {
  const stored = job.intent.plan as StoredPlan | null;
  if (job.resumed) return resume(deps, job, stored, hooks, signal);
  const vm = (await deps.guard.call("vm.list", {})).find((candidate) => candidate.vm === job.vm.vmUid);
  if (!vm || vm.process === "down") {
    if (job.vm.control === "adopted")
      throw new StillpointError("HypervisorUnavailable", "The adopted virtual machine's QEMU has ended.", {
        remedy: "Start it and import it again, or release it.",
      });
    return captureOffline(deps, job, hooks, signal);
  }
  try {
    const plan = await takePointInTime(deps, job, hooks, signal);
    return await finishCapture(deps, job, plan, hooks, signal);
  } catch (error) {
    // Called off from above: whether it goes on later or is given up is not for us to say.
    signal.throwIfAborted();
    await undo(deps, job.intent, error);
    throw error;
  }
}

/** After a restart of the service: the copy goes on where the frozen source is still there; else the point fails. */
async function resume(
  deps: CaptureDeps,
  job: CaptureJob,
  stored: StoredPlan | null,
  hooks: CaptureHooks,
  signal: AbortSignal,
): Promise<Captured> {
  try {
    if (stored?.way !== "online") throw interrupted("before its point in time was secured");
    const state = await stateOf(deps, stored.plan.capture);
    if (!state || state.phase === "open" || state.phase === "instant")
      throw interrupted("before its point in time was taken");
    requireTaken(state);
    if (state.instant) await hooks.taken(state.instant.takenAt);
    return await finishCapture(deps, job, stored.plan, hooks, signal);
  } catch (error) {
    // Called off from above: whether it goes on later or is given up is not for us to say.
    signal.throwIfAborted();
    await undo(deps, job.intent, error);
    throw error;
  }
}

/** Undoing after a failure must not hide it: what cannot be undone now stays with the intent and is undone later. */
async function undo(deps: CaptureDeps, intent: Intent, error: unknown): Promise<void> {
  const reason = error instanceof Error ? error.message : String(error);
  try {
    await giveUp(deps, intent, reason);
  } catch (second) {
    deps.log.warn({ capture: intent.capture, err: second }, "could not give the capture up yet; it stays on the list");
  }
}

async function giveUp(deps: CaptureDeps, intent: Intent, reason: string): Promise<void> {
  const capture = intent.capture as CaptureId;
  const state = await stateOf(deps, capture);
  if (!state) return;
  await atStep(deps, "give-up", () => deps.guard.call("capture.giveUp", { capture, reason }, UNDO_MS));
  await atStep(deps, "close", () => deps.guard.call("capture.close", { capture, steps: [] }, UNDO_MS));
}

async function release(deps: CaptureDeps, intent: Intent): Promise<void> {
  const stored = intent.plan as StoredPlan | null;
  if (stored?.way !== "online") return;
  const { plan } = stored;
  if (!(await stateOf(deps, plan.capture))) return;
  await atStep(deps, "release", () =>
    deps.guard.call("capture.close", { capture: plan.capture, steps: releaseSteps(plan) }, UNDO_MS),
  );
}

/** Closing waits for cancelled jobs to end, each at most a minute. */
const UNDO_MS = 180_000;
