import assert from "node:assert/strict";
import type { Judge } from "./judge.ts";
import type { FaultSite } from "./site.ts";

/** Here every disk's frozen source can be read: the exports are open, and QEMU has closed the pushed disk's staging. */
export const ALL_FROZEN = "copy-2:before";

/**
 * Asks for a point, lets the service die at `step:moment` of it, and reads the frozen source: before the death where
 * it would be too late afterwards, else when the service is gone and only the guard holds it.
 */
export async function killServiceAt(
  fault: FaultSite,
  judge: Judge,
  name: string,
  at: string,
  options: { readonly lookBefore?: boolean; readonly times?: number } = {},
): Promise<void> {
  const { service } = fault.orders;
  service.forget();
  if (options.lookBefore) service.hold(ALL_FROZEN);
  else service.kill(at, options.times);
  const asked = fault.ask(name);
  if (options.lookBefore) {
    await service.reached(ALL_FROZEN);
    assert.equal(await judge.lookAtFrozen(name), fault.vm.disks.length, "the whole frozen source can be read");
    service.kill(at, options.times);
  }
  await fault.ended("service");
  assert.ok(await asked, "the request was cut off");
  service.none();
  if (!options.lookBefore) await judge.lookAtFrozen(name);
}
