/** The steps of real captures, as the processes that took them told: the walk enumerates these and no list by hand. */
import assert from "node:assert/strict";
import { askAndHold } from "./kill.ts";
import type { FaultSite } from "./site.ts";
import { type Traces, untilClean } from "./traces.ts";

/** A place to die: `step:moment`, the n-th time it is reached. */
export interface Place {
  readonly at: string;
  readonly times: number;
}

export interface RecordedSteps {
  readonly service: readonly Place[];
  readonly guard: readonly Place[];
}

/** Takes a point and writes down the steps. */
export async function recordPoint(
  fault: FaultSite,
  clean: Traces,
  name: string,
  mode: "CrashConsistent" | null,
): Promise<RecordedSteps> {
  forget(fault);
  assert.equal(await fault.ask(name, mode), null);
  await untilClean(fault, clean);
  return recorded(fault);
}

/** Deletes a point in the middle of its copy and writes down the steps from the deletion on. */
export async function recordAbandoned(fault: FaultSite, clean: Traces, name: string): Promise<RecordedSteps> {
  const { asked, held } = await askAndHold(fault, name);
  assert.ok(held, "the capture reached its copy");
  forget(fault);
  fault.orders.service.none();
  assert.equal(await fault.remove(name), null);
  await asked;
  await untilClean(fault, clean);
  return recorded(fault);
}

function forget(fault: FaultSite): void {
  for (const orders of Object.values(fault.orders)) orders.forget();
}

function recorded(fault: FaultSite): RecordedSteps {
  return { service: places(fault.orders.service.steps()), guard: places(fault.orders.guard.steps()) };
}

/** Polling makes some steps many: their first time stands for all. */
const POLLED = "query-push";

function places(steps: readonly string[]): readonly Place[] {
  const seen = new Map<string, number>();
  return steps.flatMap((at) => {
    const times = (seen.get(at) ?? 0) + 1;
    seen.set(at, times);
    return at.startsWith(POLLED) && times > 1 ? [] : [{ at, times }];
  });
}
