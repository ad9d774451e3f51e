import { type Clock, type Probe, type Random, StillpointError } from "../base/index.ts";
import type { Guard, GuardCalls, GuardMethod } from "../guard/protocol.ts";
import type { OfflineExports } from "../hypervisors/offline/index.ts";
import type { Repository } from "../repository/index.ts";

/** What the capture engine works with. */
export interface CaptureDeps {
  readonly guard: Guard;
  readonly repository: Repository;
  readonly offline: OfflineExports;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: { warn(fields: object, message: string): void; info(fields: object, message: string): void };
  /** The guard gives a capture up when this service is silent for so long. */
  readonly silenceMs: number;
  /** Longest time from the freeze command to the thaw's answer. */
  readonly freezeMs: number;
  readonly probe?: Probe;
}

/** Eight hex digits of the repository's id: part of every name we leave in QEMU. */
export function server8(deps: CaptureDeps): string {
  return deps.repository.repositoryId.replaceAll("-", "").slice(0, 8).toLowerCase();
}

/** One named step of the plan, with the probe's eyes on both sides of it. */
export async function atStep<T>(deps: CaptureDeps, name: string, work: () => Promise<T>): Promise<T> {
  await deps.probe?.(name, "before");
  const result = await work();
  await deps.probe?.(name, "after");
  return result;
}

/**
 * A guard call as a step; one that may be repeated. A guard that went away meanwhile is waited for: it is started again
 * by itself and knows its captures, so its restart costs a copy nothing.
 */
export function guardStep<M extends GuardMethod>(
  deps: CaptureDeps,
  name: string,
  method: M,
  params: GuardCalls[M]["params"],
): Promise<GuardCalls[M]["result"]> {
  return atStep(deps, name, () => guardAgain(deps, () => deps.guard.call(method, params)));
}

const GUARD_RETURN_MS = 60_000;
const GUARD_POLL_MS = 200;

/** Repeats the call while the guard is away, for at most a minute. */
export async function guardAgain<T>(deps: CaptureDeps, call: () => Promise<T>): Promise<T> {
  const endMs = deps.clock.monotonicMs() + GUARD_RETURN_MS;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!isGuardAway(error) || deps.clock.monotonicMs() > endMs) throw error;
      await deps.clock.sleep(GUARD_POLL_MS);
    }
  }
}

/** Whether it was the guard that did not answer, and not a QEMU behind it. */
export function isGuardAway(error: unknown): boolean {
  return error instanceof StillpointError && error.code === "HypervisorUnavailable" && error.target === "guard";
}
