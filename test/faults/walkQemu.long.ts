/**
 * kill -9 of QEMU at every step of a capture, once before and once after in turn: the point fails with a clear error
 * unless its bytes were safe, earlier points read as ever, and after a start of the VM the next point is right. Every
 * second capture is the first one after such a death, so it reads in full; some of them find bitmaps that were stored
 * by a clean end and are inconsistent since.
 */
import assert from "node:assert/strict";
import { after, before, describe, type TestContext, test } from "node:test";
import type { DiskRecord } from "../../src/domain/index.ts";
import { untilAgentReady } from "../guest/lib/vm.ts";
import { takeJudged } from "./lib/kill.ts";
import { recordPoint } from "./lib/record.ts";
import { tracesOf, untilClean } from "./lib/traces.ts";
import { within } from "./lib/wait.ts";
import { openWalk, type Walk } from "./lib/walk.ts";

const START_MS = 60_000;
const SETTLE_EVERY = 10;

describe("kill -9 of QEMU", () => {
  let walk: Walk;
  /** The steps, those that only a capture after a death has among them, and the moments of each. */
  const steps = new Map<string, string[]>();
  const succeeded: string[] = [];
  /** Whether QEMU has died since the last point that succeeded: the bitmaps went with it. */
  let died = false;

  before(async () => {
    walk = await openWalk();
    const { fault, judge, clean } = walk;
    await makeInconsistent();
    judge.expectAnything("recorded");
    const now = await tracesOf(fault);
    const { service } = await recordPoint(fault, { ...clean, qemuPid: now.qemuPid }, "recorded", "CrashConsistent");
    died = false;
    for (const { at } of service) {
      const [step = "", moment = ""] = at.split(":");
      steps.set(step, [...(steps.get(step) ?? []), moment]);
    }
    assert.ok(steps.has("remove-stale-bitmap-0"), "bitmaps of a QEMU that was killed are taken away");
  });
  after(() => walk?.stop());

  async function endQemu(): Promise<void> {
    const { fault } = walk;
    const { pid, vm } = await fault.facts();
    assert.ok(pid, "QEMU runs");
    process.kill(pid, "SIGKILL");
    died = true;
    await within(START_MS, "QEMU is still there", async () => {
      const state = (await fault.guard.call("vm.list", {})).find((one) => one.vm === vm);
      return state?.process === "down" || null;
    });
  }

  async function startVm(): Promise<void> {
    const { site, vm } = walk.fault;
    await site.client.send("POST", `${vm.id}/start`, { timeoutMs: START_MS });
  }

  /** A clean end stores the bitmaps of qcow2 disks; the death of the next process leaves them inconsistent. */
  async function makeInconsistent(): Promise<void> {
    const { site, vm } = walk.fault;
    // A guest that has not booted does not hear the power button.
    await site.client.send("POST", `${vm.id}/powerOff?skipShutdown=true`, { timeoutMs: START_MS });
    await site.client.send("POST", `${vm.id}/deallocate`, { timeoutMs: START_MS });
    await startVm();
    await endQemu();
    await startVm();
  }

  /** Nothing is left of what was in the process; what was beside it must be gone, too. */
  async function untilNothingLeft(): Promise<void> {
    const { fault, clean } = walk;
    await untilClean(fault, { ...clean, qemuPid: (await fault.facts()).pid });
  }

  /** A point that is whole: read in full where the bitmaps are lost, and the record says so. */
  function checkSucceeded(name: string, disks: readonly DiskRecord[], lost: boolean): void {
    assert.equal(disks.length, walk.fault.disks);
    for (const [index, { method, kind, fullReason }] of disks.entries()) {
      assert.equal(method, index === 1 ? "push" : "pull");
      if (index === 1) continue;
      assert.equal(kind, lost ? "full-compared" : "incremental");
      if (lost) assert.match(fullReason ?? "", /inconsistent|bitmap is gone/);
    }
    succeeded.push(name);
  }

  /** A point that is held against its frozen source. */
  async function takeNext(name: string): Promise<void> {
    const { fault, judge } = walk;
    judge.expectAnything(name);
    await takeJudged(fault, judge, name);
    checkSucceeded(name, (await fault.settled(name)).record?.disks ?? [], died);
    died = false;
    await untilNothingLeft();
  }

  test("at each step of a capture", async (t: TestContext) => {
    const order = [...steps.keys()];
    const safe = order.indexOf("sync");
    const [exported, closed] = [order.indexOf("copy-0"), order.indexOf("close-export-0")];
    assert.ok(safe > closed && closed > exported && exported > 0);
    for (const [index, [step, moments]] of [...steps].entries()) {
      const at = `${step}:${moments[index % moments.length]}`;
      await t.test(at, async () => {
        const { fault, judge } = walk;
        const { service } = fault.orders;
        const name = `at-${index}`;
        if (step.startsWith("remove-stale-bitmap")) {
          await takeNext(`next-${index}`);
          await makeInconsistent();
        } else if (index % 2 === 0) await takeNext(`next-${index}`);
        judge.expectAnything(name);
        const lost = died;
        service.forget();
        service.hold(at);
        const asked = fault.ask(name);
        await service.reached(at);
        if (exported < index && index < closed) await judge.lookAtFrozen(name);
        await endQemu();
        service.none();
        const refused = await asked;
        const point = await fault.settled(name);
        assert.equal(point.provisioningState, index >= safe ? "Succeeded" : "Failed", refused?.message);
        if (index < safe) assert.match(point.error?.message ?? "", /QEMU|frozen source/, "it says what happened");
        else checkSucceeded(name, point.record?.disks ?? [], lost);
        await startVm();
        await untilNothingLeft();
        if (index % SETTLE_EVERY === 0) await judge.compare();
      });
    }
  });

  test("the VM boots, and every point reads as it was", async () => {
    const { fault, judge } = walk;
    await takeNext("last");
    await untilAgentReady(fault.site, fault.vm.id);
    assert.ok((await judge.compare({ sequences: ["first", "last"] })) > succeeded.length);
  });
});
