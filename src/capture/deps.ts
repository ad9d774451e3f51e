import type { Clock, Probe, Random } from "../base/index.ts";
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

/** A guard call as a step. */
export function guardStep<M extends GuardMethod>(
  deps: CaptureDeps,
  name: string,
  method: M,
  params: GuardCalls[M]["params"],
  timeoutMs?: number,
): Promise<GuardCalls[M]["result"]> {
  return atStep(deps, name, () => deps.guard.call(method, params, timeoutMs));
}
