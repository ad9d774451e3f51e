/** What the guard sees by itself, with no service connected: each ends the capture and leaves QEMU as it was. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { MiB } from "../../src/base/index.ts";
import type { MachineSpec } from "../../src/guard/protocol.ts";
import { type HandCaptureOptions, handCapture } from "./lib/guardCapture.ts";
import {
  type GuardHost,
  openGuardHost,
  qemuVersions,
  smallMachine,
  type TestMonitor,
  until,
  VM,
} from "./lib/guardHost.ts";

for (const { label, qemu } of qemuVersions())
  describe(`a guard that nobody talks to, ${label}`, () => {
    let host: GuardHost;
    let monitor: TestMonitor;
    let node = "";
    let spec: MachineSpec;
    before(async () => {
      host = await openGuardHost({ qemu, inProcess: true });
      await host.start();
      spec = await smallMachine(host, [{ bootIndex: 1 }]);
      node = spec.disks[0]?.node ?? "";
      await host.guard.call("vm.start", { spec });
      monitor = await host.monitor();
    });
    after(async () => {
      monitor?.close();
      await host?.close();
    });
    afterEach(async () => {
      const facts = await host.facts();
      assert.deepEqual(
        [facts.status, facts.jobs, facts.exports, facts.disks[0]?.filters, facts.disks[0]?.bitmaps],
        ["running", [], [], [], []],
      );
      assert.deepEqual(await readdir(host.captureDir), []);
      for (const { capture } of await host.guard.call("capture.list", {}))
        await host.guard.call("capture.close", { capture, steps: [] });
    });

    async function taken(options: HandCaptureOptions = {}) {
      const capture = handCapture(host, await host.facts(), options);
      await capture.take();
      const [job = ""] = capture.open.jobs;
      const undone = async () => {
        const state = await until(
          "given up",
          () => host.capture(capture.id),
          (now) => now?.phase === "given-up",
        );
        await until(
          "undone",
          () => readdir(host.captureDir),
          (names) => names.length === 0,
        );
        return state?.reason ?? "";
      };
      return { ...capture, job, undone };
    }

    /** Writes as the guest does: through the device, so through whatever stands between it and the disk. */
    async function guestWrites(offsetMiB: number, lengthMiB: number): Promise<void> {
      const device = `/machine/peripheral/disk-${node.slice(2)}/virtio-backend`;
      const line = `qemu-io -d ${device} "write -P 7 ${offsetMiB}M ${lengthMiB}M"`;
      await monitor.execute("human-monitor-command", { "command-line": line }, 30_000);
    }

    test("a service that falls silent", async () => {
      const capture = await taken({ silenceMs: 1_200 });
      assert.match(await capture.undone(), /silent for too long/);
    });

    test("a service that keeps talking is not silent", async () => {
      const capture = await taken({ silenceMs: 2_500 });
      for (let n = 0; n < 8; n++) {
        await new Promise((resolve) => setTimeout(resolve, 500));
        assert.equal((await host.guard.call("capture.check", { capture: capture.id })).phase, "taken");
      }
      await host.guard.call("capture.giveUp", { capture: capture.id, reason: "enough" });
    });

    test("a guest that overwrites more than half of what its fleece can hold", async () => {
      await guestWrites(0, 32);
      const capture = await taken();
      await guestWrites(0, 4);
      assert.equal((await host.guard.call("capture.check", { capture: capture.id })).phase, "taken");
      await guestWrites(4, 8);
      assert.match(await capture.undone(), /wrote more during the copy|outgrown/);
    });

    test("the same with its threshold never heard of: the file's size tells", async () => {
      const capture = await taken({ thresholdBytes: 0 });
      await guestWrites(0, 12);
      assert.match(await capture.undone(), /outgrown its reservation/);
    });

    test("somebody else cancels the job", async () => {
      const capture = await taken();
      await monitor.execute("block-job-cancel", { device: capture.job, force: true });
      assert.match(await capture.undone(), /cancelled by somebody else/);
    });

    test("the capture folder's file system fills up", async () => {
      const capture = await taken();
      host.spaceRule.minFreeBytes = 2 ** 60;
      try {
        assert.match(await capture.undone(), /filling up/);
        const next = handCapture(host, await host.facts());
        await assert.rejects(next.take(), { code: "InsufficientSpace" });
        await host.guard.call("capture.close", { capture: next.id, steps: [] });
      } finally {
        host.spaceRule.minFreeBytes = 0;
      }
    });

    test("QEMU hangs: its VM is unreachable, and nothing is lost when it comes back", async () => {
      const capture = await taken();
      const { pid } = await host.state();
      process.kill(pid ?? 0, "SIGSTOP");
      try {
        await until(
          "unreachable",
          () => host.state(),
          (now) => now.process === "unreachable",
        );
      } finally {
        process.kill(pid ?? 0, "SIGCONT");
      }
      await until(
        "up",
        () => host.state(),
        (now) => now.process === "up",
      );
      assert.equal((await host.guard.call("capture.check", { capture: capture.id })).phase, "taken");
      await host.guard.call("capture.giveUp", { capture: capture.id, reason: "enough" });
    });

    test("a step that is not of a capture is refused and changes nothing", async () => {
      const capture = await taken();
      for (const [execute, args] of [
        ["quit", {}],
        ["human-monitor-command", { "command-line": "quit" }],
        ["blockdev-add", { driver: "file", "node-name": "x", filename: "/etc/passwd" }],
      ] as const) {
        const step = { name: "bad", execute, arguments: args };
        await assert.rejects(host.guard.call("capture.step", { capture: capture.id, step }), {
          code: "OperationNotAllowed",
        });
        await assert.rejects(host.guard.call("vm.execute", { vm: VM, step }), { code: "OperationNotAllowed" });
      }
      await host.guard.call("capture.giveUp", { capture: capture.id, reason: "enough" });
    });

    test("opening twice with the same content is one capture, with other content a Conflict", async () => {
      const capture = handCapture(host, await host.facts());
      const first = await host.guard.call("capture.open", capture.open);
      assert.deepEqual(await host.guard.call("capture.open", capture.open), first);
      await assert.rejects(host.guard.call("capture.open", { ...capture.open, silenceMs: 1 }), { code: "Conflict" });
      const stale = { ...capture.open, capture: "another" as never, incarnation: "0".repeat(32) as never };
      await assert.rejects(host.guard.call("capture.open", stale), { code: "Conflict" });
      await host.guard.call("capture.close", { capture: capture.id, steps: [] });
    });

    test("the point in time is taken once, and not in another run state", async () => {
      const capture = handCapture(host, await host.facts(), { reserveBytes: 64 * MiB });
      await host.guard.call("capture.open", capture.open);
      await assert.rejects(capture.instant({ statuses: ["paused"] }), /run state is 'running'/);
      await assert.rejects(capture.instant(), /Cannot find device|Failed to find node/i);
      assert.equal((await host.capture(capture.id))?.phase, "open", "a refused transaction leaves the capture open");
      await capture.take();
      await assert.rejects(capture.instant(), /asked for before/);
      await host.guard.call("capture.giveUp", { capture: capture.id, reason: "enough" });
    });

    test("somebody migrates the VM: not in mid-copy, and a VM that has gone gives no point", async () => {
      const capture = await taken();
      // QEMU cannot hand over a disk that a job writes from; the copy outlives the attempt.
      assert.equal(await migrate(), "failed");
      assert.equal((await host.facts()).status, "running");
      assert.equal((await host.guard.call("capture.check", { capture: capture.id })).phase, "taken");
      await host.guard.call("capture.giveUp", { capture: capture.id, reason: "enough" });
      const next = handCapture(host, await host.facts());
      await host.guard.call("capture.open", next.open);
      assert.equal(await migrate(), "completed");
      const { status, migrating } = await host.facts();
      assert.deepEqual([status, migrating], ["postmigrate", true]);
      const state = await until(
        "noticed",
        () => host.capture(next.id),
        (now) => now?.phase === "given-up",
      );
      assert.match(state?.reason ?? "", /being migrated/);
      await host.guard.call("vm.deallocate", { vm: VM, graceMs: 0 });
      await host.guard.call("vm.start", { spec });
      monitor.close();
      monitor = await host.monitor();
    });

    /** Migrates the VM into a QEMU of the test's own, which then ends. How it went. */
    async function migrate(): Promise<string> {
      const destination = await startDestination((await host.state()).pid ?? 0);
      const look = async () => (await monitor.execute("query-migrate")) as { status: string };
      await monitor.execute("migrate", { uri: `unix:${host.dir}/migrate.sock` });
      const { status } = await until("migrated", look, (now) => ["failed", "completed"].includes(now.status));
      if (destination.exitCode === null && destination.signalCode === null) {
        destination.kill("SIGKILL");
        await once(destination, "exit");
      }
      return status;
    }

    /** A QEMU like the VM's own, waiting for its state, with sockets of its own. */
    async function startDestination(pid: number): Promise<ChildProcess> {
      const args = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0").slice(0, -1);
      const folder = join(host.dir, "destination");
      await rm(folder, { recursive: true, force: true });
      await rm(join(host.dir, "migrate.sock"), { force: true });
      await mkdir(folder);
      const own = args
        .slice(args.indexOf("-qmp") + 2)
        .map((arg) => arg.replaceAll(join(host.dir, "data/vms", VM), folder));
      const incoming = `unix:${host.dir}/migrate.sock`;
      const child = spawn(qemu, [...own, "-incoming", incoming], { stdio: "ignore" });
      await until(
        "destination",
        () => readdir(host.dir),
        (names) => names.includes("migrate.sock"),
      );
      return child;
    }
  });
