/**
 * kill -9 of the service before and after every step of a capture, and of giving one up. The steps are those that a
 * real capture told, so a step that is added to the plan is walked without anybody thinking of it.
 */
import assert from "node:assert/strict";
import { after, before, describe, type TestContext, test } from "node:test";
import { ALL_FROZEN, askAndHold, heldBefore, killServiceAt } from "./lib/kill.ts";
import { type Place, recordAbandoned, recordPoint } from "./lib/record.ts";
import { untilClean } from "./lib/traces.ts";
import { within } from "./lib/wait.ts";
import { openWalk, type Walk } from "./lib/walk.ts";

const SETTLE_EVERY = 10;
/** Every so many points find their bitmaps lost, so that full reads are walked too. */
const FULL_EVERY = 4;

describe("kill -9 of the service", () => {
  let walk: Walk;
  let taking: readonly Place[];
  let undoing: readonly Place[];

  before(async () => {
    walk = await openWalk();
    const { fault, judge, clean } = walk;
    await judge.expect("recorded");
    taking = (await recordPoint(fault, clean, "recorded", "CrashConsistent")).service;
    await judge.expect("abandoned");
    undoing = (await recordAbandoned(fault, clean, "abandoned")).service;
  });
  after(() => walk?.stop());

  /** Where the point in time is known to be taken, the capture must go on; before, it must fail. */
  const placeOf = (at: string) => taking.findIndex((place) => place.at === at);

  test("before and after each step of a capture", async (t: TestContext) => {
    const taken = placeOf("instant:after");
    const frozen = placeOf(ALL_FROZEN);
    assert.ok(taken > 0 && frozen > taken, "a capture has its steps");
    for (const [index, { at }] of taking.entries())
      await t.test(at, async () => {
        const { fault, judge } = walk;
        const { service } = fault.orders;
        const name = `at-${index}`;
        const full = index % FULL_EVERY === FULL_EVERY - 1;
        if (full) await walk.loseBitmaps();
        await judge.expect(name);
        await killServiceAt(fault, judge, name, at, { lookBefore: index > frozen });
        const goesOn = index >= taken && index <= frozen;
        service.forget();
        if (goesOn) service.hold(ALL_FROZEN);
        await fault.revive();
        if (goesOn) {
          assert.ok(await heldBefore(fault, new Promise(() => {})));
          assert.equal(await judge.lookAtFrozen(name), fault.disks, "the whole frozen source can be read");
          service.none();
        }
        const point = await walk.ended(name);
        assert.equal(point.provisioningState, index < taken ? "Failed" : "Succeeded", point.error?.message);
        // What succeeded is tried by the increment that the next place takes, unless that one reads in full.
        const tried = index < taken ? index % 2 === 0 : index % FULL_EVERY !== FULL_EVERY - 2;
        if (!tried) await walk.next(`next-${index}`);
        if (index % SETTLE_EVERY === SETTLE_EVERY - 1) await walk.settleUp();
      });
  });

  test("before and after each step of giving a capture up", async (t: TestContext) => {
    assert.ok(undoing.some(({ at }) => at === "give-up:before"));
    for (const [index, { at }] of undoing.entries())
      await t.test(at, async () => {
        const { fault, judge } = walk;
        const name = `undone-${index}`;
        await judge.expect(name);
        const { asked, held } = await askAndHold(fault, name);
        assert.ok(held, "the capture reached its copy");
        fault.orders.service.kill(at);
        const removed = fault.remove(name);
        await fault.ended("service");
        await Promise.all([asked, removed]);
        fault.orders.service.none();
        await fault.revive();
        await untilGone(walk, name);
        judge.forget(name);
        await walk.next(`after-${index}`);
      });
  });

  test("every point that is left reads as it did when it was frozen", () => walk.compareAll());
});

/** The deletion was accepted before the service died, so it is finished by the next. */
async function untilGone({ fault, clean }: Walk, name: string): Promise<void> {
  await within(60_000, `${name} is not deleted`, async () => ((await fault.point(name)) === null ? true : null));
  await untilClean(fault, clean);
}
