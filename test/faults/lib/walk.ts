/** What the walks share: a site that is looked at before and after each death, and the points that are kept to compare. */
import assert from "node:assert/strict";
import type { DiskRecord } from "../../../src/domain/index.ts";
import { type Judge, makeJudge } from "./judge.ts";
import { takeJudged } from "./kill.ts";
import { type FaultSite, openFaultSite, type PointFacts } from "./site.ts";
import { checkBitmaps, type Traces, tracesOf, untilClean } from "./traces.ts";

export interface Walk {
  readonly fault: FaultSite;
  readonly judge: Judge;
  /** What was there before the first capture. */
  readonly clean: Traces;
  /**
   * Waits until the point has ended, and checks that it is whole or not at all, that nothing was left behind, and that
   * the guest lives and writes. A point that failed says why; one that succeeded was read as `kind`.
   */
  ended(name: string): Promise<PointFacts>;
  /** A point that nobody disturbs, held against its frozen source: right, and incremental when it can be. */
  next(name: string): Promise<void>;
  /** Takes the bitmaps away, so that the next point must read the disks in full. */
  loseBitmaps(): Promise<void>;
  /** Compares what is new since the last time; then deletes most of it. Called every few deaths. */
  settleUp(): Promise<void>;
  /** Compares every point that is still there. */
  compareAll(): Promise<void>;
  stop(): Promise<void>;
}

/** Of the points compared, every so many is kept to the end; the others are deleted on the way. */
const KEPT_EVERY = 5;

/** Boots the guest and takes the first point. */
export async function openWalk(): Promise<Walk> {
  const fault = await openFaultSite();
  try {
    const judge = makeJudge(fault);
    const clean = await tracesOf(fault);
    await judge.expect("first");
    await takeJudged(fault, judge, "first");
    await untilClean(fault, clean);
    return walkOver(fault, judge, clean);
  } catch (error) {
    await fault.stop();
    throw error;
  }
}

function walkOver(fault: FaultSite, judge: Judge, clean: Traces): Walk {
  /** Whether the bitmaps on the disks are those of the newest point. */
  let tracked = true;
  const fresh: string[] = [];
  let compared = 0;

  async function checkGuest(): Promise<void> {
    await fault.vm.untilWritten((await fault.vm.written()) + 2);
    assert.equal((await fault.facts()).agent, "connected");
  }

  function checkKinds(name: string, disks: readonly DiskRecord[]): void {
    for (const [index, { method, kind, fullReason }] of disks.entries()) {
      const pushed = index === 1;
      assert.equal(method, pushed ? "push" : "pull");
      assert.equal(
        kind,
        pushed || !tracked ? "full-compared" : "incremental",
        `disk ${index} of ${name}: ${fullReason}`,
      );
      if (kind !== "incremental") assert.match(fullReason ?? "", pushed ? /iothread/ : /bitmap is gone/);
    }
  }

  async function ended(name: string): Promise<PointFacts> {
    const point = await fault.settled(name);
    await untilClean(fault, clean);
    await checkGuest();
    if (point.provisioningState === "Failed") {
      assert.match(`${point.error?.code}: ${point.error?.message}`, /^[A-Z]\w+: [A-Z].{20}/, "it says why");
      assert.equal(point.record, undefined);
      return point;
    }
    checkKinds(name, point.record?.disks ?? []);
    assert.equal(point.record?.disks.length, fault.disks);
    assert.deepEqual(point.record?.alarms, []);
    tracked = true;
    await checkBitmaps(fault);
    fresh.push(name);
    return point;
  }

  async function settleUp(): Promise<void> {
    const done = fresh.splice(0);
    assert.equal(await judge.compare({ only: done, sequences: done.slice(-1) }), done.length);
    for (const name of done) {
      if (compared++ % KEPT_EVERY === 0) continue;
      assert.equal(await fault.remove(name), null);
      judge.forget(name);
    }
  }

  return {
    fault,
    judge,
    clean,
    ended,
    next: async (name) => {
      await judge.expect(name);
      await takeJudged(fault, judge, name);
      assert.equal((await ended(name)).provisioningState, "Succeeded");
    },
    loseBitmaps: async () => {
      const { vm, disks } = await fault.facts();
      for (const { node, bitmaps } of disks)
        for (const { name } of bitmaps) {
          const step = { name: "lose", execute: "block-dirty-bitmap-remove", arguments: { node, name } };
          await fault.guard.call("vm.execute", { vm, step });
        }
      tracked = false;
    },
    settleUp,
    compareAll: async () => {
      await settleUp();
      assert.ok((await judge.compare()) > 1);
    },
    stop: () => fault.stop(),
  };
}
