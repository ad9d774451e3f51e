import { StillpointError } from "../base/index.ts";
import type { CaptureId, CaptureState } from "../guard/protocol.ts";
import type { CaptureDeps } from "./deps.ts";
import type { CapturePlan } from "./plan.ts";

/** What is stored as the intent's plan. An offline capture leaves nothing behind, so it needs no undoing. */
export type StoredPlan = { readonly way: "online"; readonly plan: CapturePlan } | { readonly way: "offline" };

/** Throws what a capture that lost its frozen source must fail with. */
export function requireTaken(state: CaptureState): void {
  if (state.phase === "taken") return;
  const why = state.reason ?? `its phase is '${state.phase}'`;
  throw new StillpointError("VMRestorePointInternalError", `The frozen source of the restore point was lost: ${why}.`, {
    remedy: "Earlier points are untouched; create the restore point again.",
  });
}

export async function stateOf(deps: CaptureDeps, capture: CaptureId): Promise<CaptureState | null> {
  const all = await deps.guard.call("capture.list", {});
  return all.find((state) => state.capture === capture) ?? null;
}

/** What a point fails with that a former life of the service left before its point in time. */
export function interrupted(when: string): StillpointError {
  return new StillpointError("VMRestorePointInternalError", `The service ended ${when}; nothing was kept.`, {
    remedy: "Create the restore point again.",
  });
}
