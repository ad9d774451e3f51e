/**
 * kill -9 of the guard at every step it takes for a capture with freeze and thaw, and for giving one up; it is started
 * again at once, as systemd does. The service lives on. Between the `after` of one step and the `before` of the next
 * the guard does nothing, so one of the two is walked, the other one with another SEED (default 1).
 */
import assert from "node:assert/strict";
import { after, before, describe, type TestContext, test } from "node:test";
import { askAndHold } from "./lib/kill.ts";
import { type Place, recordAbandoned, recordPoint } from "./lib/record.ts";
import { untilClean } from "./lib/traces.ts";
import { openWalk, type Walk } from "./lib/walk.ts";

const SETTLE_EVERY = 10;
const SEED = Number(process.env["SEED"] ?? 1);

describe(`kill -9 of the guard (SEED=${SEED})`, () => {
  let walk: Walk;
  let taking: readonly Place[];
  let undoing: readonly Place[];

  before(async () => {
    walk = await openWalk();
    const { fault, judge, clean } = walk;
    await judge.expect("recorded");
    taking = (await recordPoint(fault, clean, "recorded", null)).guard;
    await judge.expect("abandoned");
    undoing = (await recordAbandoned(fault, clean, "abandoned")).guard;
  });
  after(() => walk?.stop());

  /** One of each pair of places with nothing between them. */
  const walked = (places: readonly Place[]) =>
    places.filter((_, index) => ((index + 1) >> 1) % 2 === (index + SEED) % 2);

  /** Orders the guard to die there, and starts it again when it has. */
  function dieAt({ at, times }: Place): Promise<void> {
    const { fault } = walk;
    fault.orders.guard.forget();
    fault.orders.guard.kill(at, times);
    return fault.ended("guard").then(async () => {
      fault.orders.guard.none();
      await fault.revive();
    });
  }

  function reached({ at, times }: Place): boolean {
    return walk.fault.orders.guard.steps().filter((step) => step === at).length >= times;
  }

  test("at each step of a capture", async (t: TestContext) => {
    /** From here on the guard's journal says that the point in time was taken: its restart costs the point nothing. */
    const begun = taking.findIndex(({ at }) => at === "journal-instant-begun:after");
    const taken = taking.findIndex(({ at }) => at === "journal-taken:after");
    assert.ok(begun > 0 && taken > begun);
    for (const [index, place] of taking.entries()) {
      if (!walked(taking).includes(place)) continue;
      await t.test(`${place.at} ${place.times}`, async () => {
        const { fault, judge } = walk;
        const name = `at-${index}`;
        await judge.expect(name);
        const revived = dieAt(place);
        const { asked, held } = await askAndHold(fault, name, null);
        if (held) {
          if (reached(place)) await revived;
          assert.equal(await judge.lookAtFrozen(name), fault.disks, "the whole frozen source can be read");
        }
        fault.orders.service.none();
        const refused = await asked;
        await revived;
        const point = await walk.ended(name);
        const lost = index >= begun && index < taken;
        assert.equal(point.provisioningState, lost ? "Failed" : "Succeeded", refused?.message);
        if (lost) await walk.next(`next-${index}`);
        if (index % SETTLE_EVERY === 0) await walk.settleUp();
      });
    }
  });

  test("at each step of giving a capture up", async (t: TestContext) => {
    for (const [index, place] of undoing.entries()) {
      if (!walked(undoing).includes(place)) continue;
      await t.test(`${place.at} ${place.times}`, async () => {
        const { fault, judge, clean } = walk;
        const name = `undone-${index}`;
        await judge.expect(name);
        const { asked, held } = await askAndHold(fault, name);
        assert.ok(held, "the capture reached its copy");
        const revived = dieAt(place);
        fault.orders.service.none();
        const removed = await fault.remove(name);
        await Promise.all([asked, revived]);
        assert.equal(removed, null);
        assert.equal(await fault.point(name), null);
        judge.forget(name);
        await untilClean(fault, clean);
        await walk.next(`after-${index}`);
        if (index % SETTLE_EVERY === 0) await walk.settleUp();
      });
    }
  });

  test("every point that is left reads as it did when it was frozen", () => walk.compareAll());
});
