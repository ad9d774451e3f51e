/** What can happen to a VM, its fleece or its point while the bytes are being copied. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import type { VmState } from "../../src/guard/protocol.ts";
import { untilAgentReady } from "../guest/lib/vm.ts";
import { askAndHold, takeJudged } from "./lib/kill.ts";
import { tracesOf, untilClean } from "./lib/traces.ts";
import { within } from "./lib/wait.ts";
import { openWalk, type Walk } from "./lib/walk.ts";

const SLOW_MS = 120_000;

describe("in the middle of a copy", () => {
  let walk: Walk;
  before(async () => {
    walk = await openWalk();
  });
  after(() => walk?.stop());

  const send = (method: "POST" | "DELETE", path: string, body?: unknown) =>
    walk.fault.site.client.send(method, path, { body, timeoutMs: SLOW_MS });
  const inGuest = (command: string) => walk.fault.vm.console.run(command, SLOW_MS);

  async function vmState(): Promise<VmState> {
    const [state] = await walk.fault.guard.call("vm.list", {});
    assert.ok(state);
    return state;
  }

  const untilVm = (what: string, is: (state: VmState) => boolean) =>
    within(SLOW_MS, `the VM is not ${what}`, async () => ((now) => (is(now) ? now : null))(await vmState()));

  /** Takes a point up to where its whole frozen source can be read, and reads it. */
  async function midCopy(name: string): Promise<{ readonly asked: Promise<Error | null> }> {
    const { fault, judge } = walk;
    await judge.expect(name);
    const { asked, held } = await askAndHold(fault, name);
    assert.ok(held, "the capture reached its copy");
    assert.equal(await judge.lookAtFrozen(name), fault.disks);
    return { asked };
  }

  test("a restore is refused with how far the copy is", async () => {
    const { fault } = walk;
    const { asked } = await midCopy("early");
    const body = { properties: { targetResourceGroup: "test", vmName: "early", start: false } };
    const restore = send("POST", `${fault.pointId("early")}/providers/Stillpoint.Restore/restores`, body);
    await assert.rejects(restore, /Conflict|NotAllowed.*\d+ ?%/);
    fault.orders.service.none();
    assert.equal(await asked, null);
    await walk.ended("early");
  });

  for (const [what, path] of [
    ["deleted", (point: string) => ["DELETE", point] as const],
    ["abandoned", (point: string) => ["POST", `${point}/providers/Stillpoint.Capture/abandon`] as const],
  ] as const)
    test(`a point that is ${what} is gone, and so is all it had made`, async () => {
      const { fault, judge, clean } = walk;
      const { asked } = await midCopy(what);
      const [method, target] = path(fault.pointId(what));
      const removed = send(method, target);
      fault.orders.service.none();
      await removed;
      assert.match((await asked)?.message ?? "", /deleted/);
      assert.equal(await fault.point(what), null);
      judge.forget(what);
      await untilClean(fault, clean);
      await walk.next(`after-${what}`);
    });

  /** 37 MiB over data that was there before the point, so all of the old must go to the fleece; read back afterwards. */
  const MIB = 37;
  const fill = () => inGuest(`dd if=/dev/urandom of=/c/big bs=1M count=${MIB} conv=fsync 2>/dev/null`);
  const overwrite = () =>
    inGuest(
      `dd if=/dev/urandom of=/run/big bs=1M count=${MIB} 2>/dev/null && ` +
        "dd if=/run/big of=/c/big bs=1M conv=notrunc,fsync 2>/dev/null && " +
        "echo 3 > /proc/sys/vm/drop_caches && cmp /run/big /c/big && rm /run/big && ! dmesg | grep -i 'i/o error'",
    );

  test("a fleece that runs full while the service hangs: the guard gives up alone, and the guest feels nothing", async () => {
    const { fault, clean } = walk;
    await fill();
    const { asked } = await midCopy("full");
    const service = fault.site.pid("service");
    assert.ok(service, "the service runs");
    process.kill(service, "SIGSTOP");
    try {
      await overwrite();
      await within(SLOW_MS, "the capture was not given up", async () => {
        const [capture] = await fault.captures();
        return capture?.phase === "given-up" ? capture : null;
      });
      assert.deepEqual((await fault.facts()).jobs, [], "undone while the service hangs");
    } finally {
      process.kill(service, "SIGCONT");
    }
    fault.orders.service.none();
    assert.match((await asked)?.message ?? "", /frozen source .* was lost: .*wrote (more|too much) during the copy/);
    await untilClean(fault, clean);
    const point = await walk.ended("full");
    assert.equal(point.provisioningState, "Failed");
    await walk.next("after-full");
  });

  test("a fleece that breaks (EIO) while the service is dead: the guest waits a moment and its writes are right", async () => {
    const { fault } = walk;
    const { asked } = await midCopy("broken");
    await fault.site.kill("service");
    fault.orders.service.none();
    await asked;
    const fleece = (await fault.captures())[0]?.scratch["2"] ?? "";
    const { pid } = await vmState();
    assert.ok(pid && fleece, "QEMU runs on a fleece");
    const strace = await breakWrites(pid, fleece);
    try {
      await overwrite();
      await within(SLOW_MS, "the capture was not given up", async () => {
        const [capture] = await fault.captures();
        return capture?.phase === "given-up" ? capture : null;
      });
    } finally {
      await strace.end();
    }
    await fault.revive();
    const point = await walk.ended("broken");
    assert.equal(point.provisioningState, "Failed");
    assert.match(point.error?.message ?? "", /write of the guest failed|I\/O error|job .* (error|failed)/);
    await inGuest("rm /c/big");
    await walk.next("after-broken");
  });

  test("the guest powers off and is started again: same process, and the point succeeds", async () => {
    const { fault } = walk;
    const { asked } = await midCopy("off");
    const { pid } = await vmState();
    await inGuest("poweroff").catch(() => {});
    assert.equal((await untilVm("off", (now) => now.status === "shutdown")).pid, pid);
    await send("POST", `${fault.vm.id}/start`);
    assert.equal((await untilVm("running", (now) => now.status === "running")).pid, pid);
    fault.orders.service.none();
    assert.equal(await asked, null);
    await untilAgentReady(fault.site, fault.vm.id);
    assert.equal((await walk.ended("off")).provisioningState, "Succeeded");
    await walk.next("after-off");
  });

  test("deallocated: QEMU stays until the point is durable", async () => {
    const { fault, judge } = walk;
    const { asked } = await midCopy("gone");
    await send("POST", `${fault.vm.id}/deallocate`);
    const waiting = await vmState();
    assert.deepEqual([waiting.process, waiting.quitting], ["up", true]);
    assert.notEqual(waiting.status, "running");
    assert.equal(await judge.lookAtFrozen("gone"), fault.disks, "the same frozen source as before");
    fault.orders.service.none();
    assert.equal(await asked, null);
    await untilVm("down", (now) => now.process === "down");
    await send("POST", `${fault.vm.id}/start`);
    // A clean end keeps the bitmaps of qcow2 disks, so their next point is still an increment.
    judge.expectAnything("after-gone");
    await takeJudged(fault, judge, "after-gone");
    const kinds = (await fault.settled("after-gone")).record?.disks.map(({ kind }) => kind);
    assert.deepEqual(kinds, ["incremental", "full-compared", "full-compared", "full-compared"]);
  });

  test("QEMU is killed: a clear error, and the next point is right", async () => {
    const { fault, judge, clean } = walk;
    const now = await tracesOf(fault);
    judge.expectAnything("killed");
    const { asked, held } = await askAndHold(fault, "killed");
    assert.ok(held);
    assert.ok(now.qemuPid, "QEMU runs");
    process.kill(now.qemuPid, "SIGKILL");
    fault.orders.service.none();
    assert.match((await asked)?.message ?? "", /frozen source of the restore point was lost: .*(ended|SIGKILL)/);
    assert.equal((await fault.settled("killed")).provisioningState, "Failed");
    await untilVm("down", (state) => state.process === "down");
    await send("POST", `${fault.vm.id}/start`);
    judge.expectAnything("after-killed");
    await takeJudged(fault, judge, "after-killed");
    await untilClean(fault, { ...clean, qemuPid: (await fault.facts()).pid });
  });

  test("every point that succeeded reads as it was frozen", async () => {
    assert.ok((await walk.judge.compare({ sequences: ["off", "after-broken"] })) >= 10);
  });
});

/** From now on every write of the process to this file fails with EIO. */
async function breakWrites(pid: number, path: string): Promise<{ end(): Promise<void> }> {
  const calls = "pwrite64,pwritev,pwritev2,write,writev";
  const strace = spawn("strace", ["-f", "-p", `${pid}`, "-P", path, "-e", `inject=${calls}:error=EIO`], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  strace.stderr.setEncoding("utf8").on("data", (text: string) => (said += text.slice(0, 10_000)));
  await within(
    30_000,
    () => `strace does not attach: ${said}`,
    async () => said.includes("attached") || null,
  );
  return {
    end: async () => {
      if (strace.exitCode !== null || strace.signalCode !== null) return;
      strace.kill("SIGINT");
      await once(strace, "exit");
    },
  };
}
