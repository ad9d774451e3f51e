/** The domain's `Captures` port over guard, NBD and repository. */
import { StillpointError } from "../base/index.ts";
import type { Captured, CaptureHooks, CaptureJob, Captures, Intent } from "../domain/index.ts";
import type { CaptureId } from "../guard/protocol.ts";
import type { PointWriter } from "../repository/index.ts";
import { atStep, type CaptureDeps, guardAgain } from "./deps.ts";
import { finishCapture } from "./finish.ts";
import { captureOffline } from "./offline.ts";
import { interrupted, requireTaken, type StoredPlan, stateOf } from "./state.ts";
import { releaseSteps } from "./steps.ts";
import { takePointInTime } from "./take.ts";

/** Points that are copied but not committed, by capture: an open writer keeps what it wrote from being collected. */
type Writers = Map<string, PointWriter>;

export function createCaptures(deps: CaptureDeps): Captures {
  const writers: Writers = new Map();
  const letGo = async (intent: Intent) => {
    await writers.get(intent.capture)?.close();
    writers.delete(intent.capture);
  };
  return {
    run: async (job, hooks, signal) => {
      const writer = await deps.repository.beginPoint();
      writers.set(job.intent.capture, writer);
      try {
        return await (job.resumed ? resume : begin)(deps, job, writer, hooks, signal);
      } catch (error) {
        await letGo(job.intent);
        throw error;
      }
    },
    release: async (intent) => {
      await letGo(intent);
      await release(deps, intent);
    },
    giveUp: async (intent, reason) => {
      await letGo(intent);
      await giveUp(deps, intent, reason);
    },
  };
}

async function begin(
  deps: CaptureDeps,
  job: CaptureJob,
  writer: PointWriter,
  hooks: CaptureHooks,
  signal: AbortSignal,
): Promise<Captured> {
  const vm = (await deps.guard.call("vm.list", {})).find((candidate) => candidate.vm === job.vm.vmUid);
  if (!vm || vm.process === "down") {
    if (job.vm.control === "adopted")
      throw new StillpointError("HypervisorUnavailable", "The adopted virtual machine's QEMU has ended.", {
        remedy: "Start it and import it again, or release it.",
      });
    return captureOffline(deps, job, writer, hooks, signal);
  }
  return orUndone(deps, job, signal, async () => {
    const plan = await takePointInTime(deps, job, hooks, signal);
    return finishCapture(deps, job, plan, writer, hooks, signal);
  });
}

/** After a restart of the service: the copy goes on where the frozen source is still there; else the point fails. */
function resume(
  deps: CaptureDeps,
  job: CaptureJob,
  writer: PointWriter,
  hooks: CaptureHooks,
  signal: AbortSignal,
): Promise<Captured> {
  const stored = job.intent.plan as StoredPlan | null;
  return orUndone(deps, job, signal, async () => {
    if (stored?.way !== "online") throw interrupted("before its point in time was secured");
    const state = await guardAgain(deps, () => stateOf(deps, stored.plan.capture));
    if (!state || state.phase === "open" || state.phase === "instant")
      throw interrupted("before its point in time was taken");
    requireTaken(state);
    if (state.instant) await hooks.taken(state.instant.takenAt);
    return finishCapture(deps, job, stored.plan, writer, hooks, signal);
  });
}

async function orUndone<T>(
  deps: CaptureDeps,
  job: CaptureJob,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
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
