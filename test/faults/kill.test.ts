/** kill -9 of the service at five places of a capture: the guest lives, nothing is left behind, no point is half there. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { type Judge, makeJudge } from "./lib/judge.ts";
import { killServiceAt } from "./lib/kill.ts";
import { type FaultSite, openFaultSite } from "./lib/site.ts";
import { checkBitmaps, type Traces, tracesOf, untilClean } from "./lib/traces.ts";

/** What the user is told afterwards: a point whose source was frozen goes on, any earlier one has failed. */
const PLACES = [
  { what: "before the plan is written", at: "plan-saved:before", ends: "Failed" },
  { what: "after a fleece was made", at: "scratch-2:after", ends: "Failed" },
  { what: "after the point in time", at: "instant:after", ends: "Succeeded" },
  { what: "in mid-copy", at: "copy-2:before", ends: "Succeeded" },
  { what: "after the journal entry", at: "publish:after", ends: "Succeeded" },
] as const;

describe("kill -9 of the service", () => {
  let fault: FaultSite;
  let judge: Judge;
  let clean: Traces;

  before(async () => {
    fault = await openFaultSite();
    judge = makeJudge(fault);
    clean = await tracesOf(fault);
    await judge.expect("first");
    assert.equal(await fault.ask("first"), null);
    await untilClean(fault, clean);
  });
  after(() => fault?.stop());

  for (const [index, { what, at, ends }] of PLACES.entries())
    test(`${what} (${at})`, async () => {
      const name = `killed-${index}`;
      await judge.expect(name);
      await killServiceAt(fault, judge, name, at, { lookBefore: at === "publish:after" });
      await fault.revive();
      const point = await fault.settled(name);
      assert.equal(point.provisioningState, ends, point.error?.message);
      await untilClean(fault, clean);
      await checkBitmaps(fault);
      const written = await fault.vm.written();
      await fault.vm.untilWritten(written + 3);
      assert.equal((await fault.facts()).agent, "connected");

      const next = `next-${index}`;
      await judge.expect(next);
      assert.equal(await fault.ask(next), null);
      const { record } = await fault.settled(next);
      const kinds = record?.disks.map((disk) => `${disk.method} ${disk.kind}`);
      assert.deepEqual(kinds, ["pull incremental", "push full-compared", "pull incremental", "pull incremental"]);
      assert.deepEqual(record?.alarms, []);
      await untilClean(fault, clean);
    });

  test("every point that succeeded reads as it was frozen, in write order, with nothing lost", async () => {
    const succeeded = 1 + PLACES.filter(({ ends }) => ends === "Succeeded").length + PLACES.length;
    // Of each, what can be read of the frozen source was read by qemu-img, too.
    const sequences = ["killed-3", "next-0"];
    assert.equal(await judge.compare({ sequences }), succeeded);
  });
});
