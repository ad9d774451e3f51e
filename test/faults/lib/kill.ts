import assert from "node:assert/strict";
import type { Judge } from "./judge.ts";
import type { FaultSite } from "./site.ts";
import { within } from "./wait.ts";

/** Here every disk's frozen source can be read: the exports are open, and QEMU has closed the pushed disk's staging. */
export const ALL_FROZEN = "copy-2:before";

const HOLD_MS = 120_000;

/** Asks for a point and stops its service where the frozen source can be read; null when it ended before. */
export async function askAndHold(
  fault: FaultSite,
  name: string,
  mode: "CrashConsistent" | null = "CrashConsistent",
): Promise<{ readonly asked: Promise<Error | null>; readonly held: boolean }> {
  const { service } = fault.orders;
  service.forget();
  service.hold(ALL_FROZEN);
  const asked = fault.ask(name, mode);
  return { asked, held: await heldBefore(fault, asked) };
}

/** Waits until the service is held at {@link ALL_FROZEN} (true) or the request has ended (false). */
export async function heldBefore(fault: FaultSite, asked: Promise<unknown>): Promise<boolean> {
  let over = false;
  asked.then(() => (over = true));
  return within(HOLD_MS, "the capture neither ended nor reached its copy", async () => {
    if (fault.orders.service.steps().includes(ALL_FROZEN)) return true;
    return over ? false : null;
  });
}

/** Takes an expected point while nobody dies, with a full read of its frozen source; throws when it fails. */
export async function takeJudged(fault: FaultSite, judge: Judge, name: string): Promise<void> {
  const { asked, held } = await askAndHold(fault, name);
  if (held) assert.equal(await judge.lookAtFrozen(name), fault.disks, "the whole frozen source can be read");
  fault.orders.service.none();
  assert.equal(await asked, null);
}

/**
 * Asks for a point, lets the service die at `step:moment` of it, and reads the frozen source: before the death where
 * it would be too late afterwards, else when the service is gone and only the guard holds it.
 */
export async function killServiceAt(
  fault: FaultSite,
  judge: Judge,
  name: string,
  at: string,
  options: { readonly lookBefore?: boolean } = {},
): Promise<void> {
  const { service } = fault.orders;
  service.forget();
  let asked: Promise<Error | null>;
  if (options.lookBefore) {
    const hold = await askAndHold(fault, name);
    assert.ok(hold.held, "the capture reached its copy");
    assert.equal(await judge.lookAtFrozen(name), fault.disks, "the whole frozen source can be read");
    service.kill(at);
    asked = hold.asked;
  } else {
    service.kill(at);
    asked = fault.ask(name);
  }
  await fault.ended("service");
  await asked;
  service.none();
  if (!options.lookBefore) await judge.lookAtFrozen(name);
}
