/** From a job to a point in time: look, plan, write the plan down, prepare, and let the guard take it. */
import { StillpointError } from "../base/index.ts";
import type { CaptureHooks, CaptureJob } from "../domain/index.ts";
import type { CaptureId, InstantFacts } from "../guard/protocol.ts";
import { atStep, type CaptureDeps, guardAgain, guardStep, isGuardAway, server8 } from "./deps.ts";
import { diskIn, unknownDisks } from "./known.ts";
import { decideMode } from "./mode.ts";
import { type CapturePlan, type PlannedDisk, planCapture } from "./plan.ts";
import { requireTaken, type StoredPlan, stateOf } from "./state.ts";
import { exportSteps, giveUpSteps, prepareSteps, transactionStep } from "./steps.ts";

/** The frozen source exists and is exported when this returns; the caller undoes the capture when it throws. */
export async function takePointInTime(
  deps: CaptureDeps,
  job: CaptureJob,
  hooks: CaptureHooks,
  signal: AbortSignal,
): Promise<CapturePlan> {
  const capture = job.intent.capture as CaptureId;
  const facts = await deps.guard.call("vm.inspect", { vm: job.vm.vmUid });
  const mode = decideMode(job.point.requestedMode, facts);
  const foreignNbd =
    facts.kind === "adopted" && (await deps.guard.call("vm.nbd", { vm: job.vm.vmUid })).server === "foreign";
  const plan = planCapture({
    capture,
    server8: server8(deps),
    facts,
    disks: job.disks.map(({ disk }): PlannedDisk => {
      return {
        diskUid: disk.diskUid,
        name: disk.name,
        node: diskIn(facts, disk)?.node ?? "",
        anchor: job.anchors.get(disk.diskUid) ?? null,
      };
    }),
    freeze: mode.freeze,
    modeReason: mode.reason,
    foreignNbd,
    unknownDisks: unknownDisks(facts, [...job.disks.map(({ disk }) => disk), ...job.excluded]),
  });
  const stored: StoredPlan = { way: "online", plan };
  await atStep(deps, "plan-saved", () => hooks.savePlan(stored));
  await openCapture(deps, plan);
  signal.throwIfAborted();
  await prepare(deps, plan);
  signal.throwIfAborted();
  const instant = await atStep(deps, "instant", () => takeInstant(deps, plan));
  await hooks.taken(instant.takenAt);
  const state = await guardAgain(deps, () => deps.guard.call("capture.check", { capture }));
  requireTaken(state);
  return plan;
}

/** Freeze (≤ 30 s), transaction and thaw have deadlines of their own in the guard; this only outlasts them. */
const INSTANT_MS = 120_000;

/**
 * Not repeatable by itself. A guard that went away in the middle is asked what it had come to: taken, or not yet begun;
 * then, and only then, it is asked for once more.
 */
async function takeInstant(deps: CaptureDeps, plan: CapturePlan): Promise<InstantFacts> {
  const { capture } = plan;
  const request = {
    capture,
    transaction: transactionStep(plan),
    freeze: plan.freeze ? { deadlineMs: deps.freezeMs } : null,
    statuses: [plan.status],
  };
  const call = () => deps.guard.call("capture.instant", request, INSTANT_MS);
  try {
    return await call();
  } catch (error) {
    if (!isGuardAway(error)) throw error;
    const state = await guardAgain(deps, () => stateOf(deps, capture));
    if (state?.phase === "taken" && state.instant) return state.instant;
    if (state?.phase === "open") return call();
    throw error;
  }
}

async function openCapture(deps: CaptureDeps, plan: CapturePlan): Promise<void> {
  await guardStep(deps, "open", "capture.open", {
    capture: plan.capture,
    vm: plan.vm,
    incarnation: plan.incarnation,
    giveUp: giveUpSteps(plan),
    jobs: plan.disks.map((disk) => disk.names.job),
    silenceMs: deps.silenceMs,
  });
}

async function prepare(deps: CaptureDeps, plan: CapturePlan): Promise<void> {
  const paths: Record<string, string> = {};
  for (const disk of plan.disks) {
    const { path } = await guardStep(deps, `scratch-${disk.scratch.name}`, "capture.scratch", {
      capture: plan.capture,
      scratch: disk.scratch,
    });
    paths[disk.scratch.name] = path;
  }
  for (const step of prepareSteps(plan, paths))
    await guardStep(deps, step.name, "capture.step", { capture: plan.capture, step });
}

/** Opens the frozen sources for reading; says where. Repeatable, so a restarted service calls it again. */
export async function serve(deps: CaptureDeps, plan: CapturePlan): Promise<string | null> {
  const steps = exportSteps(plan);
  if (steps.length === 0) return null;
  const { socket } = await guardStep(deps, "serve", "capture.serve", { capture: plan.capture });
  for (const step of steps) await guardStep(deps, step.name, "capture.step", { capture: plan.capture, step });
  if (!socket) throw new StillpointError("InternalError", "The guard named no NBD socket.");
  return socket;
}
