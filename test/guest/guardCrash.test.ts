/** The guard killed at every record of its journal and every step it runs: QEMU and capture folder end as they began. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import type { CaptureState } from "../../src/guard/protocol.ts";
import { type HandCapture, handCapture } from "./lib/guardCapture.ts";
import { type GuardHost, openGuardHost, smallMachine, until } from "./lib/guardHost.ts";

/** Where a guard can die that takes a capture, closes it, or gives it up. */
const TAKING = [
  ...["journal-open", "journal-scratch", "target", "watch", "journal-instant-begun", "transaction", "journal-taken"],
  "export",
];
const CLOSING = ["journal-closing", "close-export", "cancel-job", "dismiss-job", "remove-target", "journal-closed"];
const UNDOING = [
  "journal-ending",
  "journal-undoing",
  "close-export",
  "cancel-job",
  "remove-target",
  "rejoin",
  "journal-ended",
];

describe("a guard that dies in the middle of a capture", () => {
  let host: GuardHost;
  let clean: unknown;
  before(async () => {
    host = await openGuardHost();
    await host.start();
    const spec = await smallMachine(host, [{ bootIndex: 1 }, { format: "raw" }]);
    await host.guard.call("vm.start", { spec });
    const step = (execute: string, args: Readonly<Record<string, unknown>>) =>
      host.guard.call("vm.execute", { vm: spec.vm, step: { name: "old", execute, arguments: args } });
    for (const { node } of spec.disks)
      await step("block-dirty-bitmap-add", { node, name: `sp-old-${node}`, granularity: 65536 });
    clean = await traces();
  });
  after(() => host?.close());

  /** Everything that a capture could leave behind. */
  async function traces() {
    const { status, incarnation, pid, jobs, exports, nodes, disks } = await host.facts();
    const left = disks.map(({ node, filters, bitmaps }) => ({ node, filters, bitmaps }));
    return {
      status,
      incarnation,
      pid,
      jobs,
      exports,
      nodes: [...nodes].sort(),
      left,
      files: await readdir(host.captureDir),
    };
  }

  async function newCapture(): Promise<HandCapture> {
    const facts = await host.facts();
    return handCapture(host, facts, { oldBitmaps: facts.disks.map(({ node }) => `sp-old-${node}`) });
  }

  /** Starts the guard so that it dies at `crashAt`, and goes on with the calls until it does. */
  async function dieAt(crashAt: string, calls: HandCapture["calls"]): Promise<void> {
    await host.kill("SIGTERM");
    await host.start(crashAt);
    for (const [name, call] of calls) {
      const failure = await call().then(
        () => null,
        (error: Error & { code?: string }) => error,
      );
      if (!failure) continue;
      assert.equal(failure.code, "HypervisorUnavailable", `${name} after ${crashAt}: ${failure.message}`);
      await host.ended();
      return host.start();
    }
    assert.fail(`the guard did not come by ${crashAt}`);
  }

  for (const name of TAKING)
    for (const moment of ["before", "after"])
      test(`${moment} ${name}, when taking: the capture is as the journal says, and can be given up`, async () => {
        const capture = await newCapture();
        await dieAt(`${name}:${moment}`, capture.calls);
        const settled = (now: CaptureState | undefined) => now?.phase !== "instant";
        const state = await until("settled", () => host.capture(capture.id), settled);
        if (state?.phase === "given-up") assert.match(state.reason ?? "", /guard was restarted/);
        if (state?.phase === "taken")
          assert.deepEqual([...(await host.facts()).jobs].sort(), [...capture.open.jobs].sort());
        if (state) await host.guard.call("capture.giveUp", { capture: capture.id, reason: "the test says so" });
        await host.guard.call("capture.close", { capture: capture.id, steps: [] });
        assert.deepEqual(await traces(), clean);
      });

  for (const name of CLOSING)
    for (const moment of ["before", "after"])
      test(`${moment} ${name}, when closing: finished by the next guard alone`, async () => {
        const capture = await newCapture();
        await capture.take();
        const closing = () => close(capture);
        await dieAt(`${name}:${moment}`, [["close", closing]]);
        if (`${moment} ${name}` === "before journal-closing") await closing();
        await until(
          "closed",
          () => host.capture(capture.id),
          (now) => now === undefined,
        );
        assert.deepEqual(await traces(), clean);
        await closing();
      });

  /** An orderly end that leaves the bitmaps as they were: the steps of a give-up, as release steps. */
  function close(capture: HandCapture) {
    return host.guard.call("capture.close", { capture: capture.id, steps: capture.open.giveUp.after });
  }

  for (const name of UNDOING)
    for (const moment of ["before", "after"])
      test(`${moment} ${name}, when giving up: finished by the next guard alone`, async () => {
        const capture = await newCapture();
        await capture.take();
        const giveUp = () => host.guard.call("capture.giveUp", { capture: capture.id, reason: "enough" });
        await dieAt(`${name}:${moment}`, [["giveUp", giveUp]]);
        const begun = !(name === "journal-ending" && moment === "before");
        if (!begun) {
          assert.equal((await host.capture(capture.id))?.phase, "taken");
          await giveUp();
        }
        await until("undone", traces, (now) => JSON.stringify(now) === JSON.stringify(clean));
        assert.deepEqual((await host.capture(capture.id))?.reason, "enough");
        await host.guard.call("capture.close", { capture: capture.id, steps: [] });
        assert.deepEqual(await traces(), clean);
      });
});
