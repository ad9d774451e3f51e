/** The guard and a real Linux guest that writes: freeze and thaw, fleeces that fail, a guest that powers off. */
import assert from "node:assert/strict";
import { copyFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { buildGuest, makeDataDisk } from "../../setup/guest/index.ts";
import { MiB, systemClock } from "../../src/base/index.ts";
import type { CaptureState, MachineSpec } from "../../src/guard/protocol.ts";
import { connectConsole, type GuestConsole } from "../../src/programs/quickstart/console.ts";
import { type HandCapture, type HandCaptureOptions, handCapture } from "./lib/guardCapture.ts";
import { type GuardHost, openGuardHost, type TestMonitor, until, VM } from "./lib/guardHost.ts";

const SLOW_MS = 240_000;
const FREEZE = { freeze: { deadlineMs: 20_000 } };
const OS = "d-000000000000";
const B = "d-000000000001";
const C = "d-000000000002";

describe("the guard and a guest that writes", () => {
  let host: GuardHost;
  let guest: GuestConsole;
  let spec: MachineSpec;
  before(async () => {
    const image = await buildGuest(() => {});
    host = await openGuardHost();
    await host.start();
    const [os, b, c] = ["os.qcow2", "b.qcow2", "c.raw"].map((name) => join(host.dir, "pool", name)) as [
      string,
      string,
      string,
    ];
    await copyFile(image.osDisk, os);
    await makeDataDisk(b, { label: "sp-b", sizeBytes: 64 * MiB, format: "qcow2" });
    await makeDataDisk(c, { label: "sp-c", sizeBytes: 64 * MiB, format: "raw" });
    const disk = { bus: "virtio-blk", serial: "", iothread: false } as const;
    spec = {
      ...{
        vm: VM,
        machineType: "q35",
        cpuModel: "default",
        vcpus: 1,
        memoryMiB: 256,
        firmware: { kind: "bios" },
        nics: [],
      },
      disks: [
        { ...disk, node: OS, path: os, format: "qcow2", bootIndex: 1 },
        { ...disk, node: B, path: b, format: "qcow2" },
        { ...disk, node: C, path: c, format: "raw" },
      ],
    };
    await host.guard.call("vm.start", { spec });
    await boots();
  });
  after(async () => {
    guest?.close();
    await host?.close();
  });

  async function boots(): Promise<void> {
    guest?.close();
    guest = await connectConsole(join(host.dir, "data/vms", VM, "console.sock"), systemClock);
    await guest.run("until [ -e /run/written ]; do sleep 0.1; done", SLOW_MS);
    await until(
      "agent",
      () => host.facts(),
      ({ agent }) => agent === "connected",
    );
  }

  const inGuest = (command: string) => guest.run(command, SLOW_MS);
  const written = async () => Number((await inGuest("cat /run/written")).trim());

  /** The guest is not frozen: its writer, which fsyncs on every disk, gets on. */
  async function writesOn(): Promise<void> {
    const before = await written();
    await until("the guest writes on", written, (now) => now > before + 2);
  }

  async function clean(): Promise<void> {
    const look = async () => {
      const { status, jobs, exports, disks } = await host.facts();
      return {
        status,
        jobs,
        exports,
        filters: disks.flatMap((disk) => disk.filters),
        files: await readdir(host.captureDir),
      };
    };
    const nothing = { status: "running", jobs: [], exports: [], filters: [], files: [] };
    await until("nothing left", look, (now) => JSON.stringify(now) === JSON.stringify(nothing));
    for (const { capture } of await host.guard.call("capture.list", {}))
      await host.guard.call("capture.close", { capture, steps: [] });
    await writesOn();
  }

  const phaseOf = (capture: HandCapture, phase: CaptureState["phase"]) =>
    until(
      phase,
      () => host.capture(capture.id),
      (now) => now?.phase === phase,
    );

  test("freezes all three file systems around the point, and says what it reached", async () => {
    const capture = handCapture(host, await host.facts());
    const { freeze, transactionMs, statusAtInstant, takenAt } = await capture.take(FREEZE);
    assert.equal(statusAtInstant, "running");
    assert.ok(Date.parse(takenAt) > 0 && transactionMs > 0);
    assert.deepEqual([freeze?.frozenFilesystems, freeze?.thawedFilesystems, freeze?.held], [3, 3, true]);
    assert.ok(freeze && freeze.frozenMs >= freeze.freezeMs + freeze.thawMs);
    assert.deepEqual((await host.guard.call("capture.check", { capture: capture.id })).instant?.freeze, freeze);
    await capture.close();
    await clean();
  });

  test("a deadline that is over at once: an error, nothing taken, and the guest writes on", async () => {
    const capture = handCapture(host, await host.facts());
    for (const [name, call] of capture.calls) {
      if (name === "instant") break;
      await call();
    }
    await assert.rejects(capture.instant({ freeze: { deadlineMs: 4 } }), { code: "VMAgentStatusCommunicationError" });
    assert.equal((await host.capture(capture.id))?.phase, "open");
    await host.guard.call("capture.giveUp", { capture: capture.id, reason: "no freeze" });
    await clean();
  });

  test("an agent that hangs: silent, no point, and the guest is thawed when it comes back", async () => {
    await inGuest("kill -STOP $(pidof qemu-ga)");
    assert.equal((await host.facts()).agent, "silent");
    const capture = handCapture(host, await host.facts());
    await assert.rejects(capture.take(FREEZE), { code: "VMAgentStatusCommunicationError" });
    await host.guard.call("capture.giveUp", { capture: capture.id, reason: "no agent" });
    await inGuest("kill -CONT $(pidof qemu-ga)");
    await until(
      "agent",
      () => host.facts(),
      ({ agent }) => agent === "connected",
    );
    await clean();
  });

  test("no agent at all is said so", async () => {
    await inGuest("mv /usr/sbin/qemu-ga /usr/sbin/qemu-ga.off; kill $(pidof qemu-ga)");
    await until(
      "absent",
      () => host.facts(),
      ({ agent }) => agent === "absent",
    );
    const capture = handCapture(host, await host.facts());
    await assert.rejects(capture.take(FREEZE), /No guest agent is running/);
    await host.guard.call("capture.giveUp", { capture: capture.id, reason: "no agent" });
    await inGuest("mv /usr/sbin/qemu-ga.off /usr/sbin/qemu-ga");
    await until(
      "agent",
      () => host.facts(),
      ({ agent }) => agent === "connected",
    );
    await clean();
  });

  for (const crashAt of [
    "journal-freeze-begun:after",
    "transaction:before",
    "transaction:after",
    "journal-thawed:before",
  ])
    test(`the guard dies at ${crashAt}: the next one thaws the guest and undoes the point`, async () => {
      const capture = handCapture(host, await host.facts());
      await host.kill("SIGTERM");
      await host.start(crashAt);
      await assert.rejects(capture.take(FREEZE), { code: "HypervisorUnavailable" });
      await host.ended();
      await host.start();
      const { reason } = (await phaseOf(capture, "given-up")) ?? {};
      assert.match(reason ?? "", /guard was restarted/);
      await clean();
    });

  /** 12 MiB into /b, of a new content each time, read back from the disk itself. */
  async function guestOverwrites(): Promise<void> {
    const file = "/b/big";
    await inGuest(
      `dd if=/dev/urandom of=/run/big bs=1M count=12 2>/dev/null && dd if=/run/big of=${file} bs=1M conv=fsync`,
    );
    await inGuest(`echo 3 > /proc/sys/vm/drop_caches; cmp /run/big ${file}; rm /run/big ${file}; sync`);
  }

  test("a guest that writes more than its fleece holds feels nothing, and the point is given up", async () => {
    await guestOverwrites();
    const capture = handCapture(host, await host.facts());
    await capture.take();
    await guestOverwrites();
    assert.match((await phaseOf(capture, "given-up"))?.reason ?? "", /wrote (more|too much) during the copy/);
    await clean();
  });

  /** A capture whose fleece of /b fails every write, put in by hand: the guard itself opens no such thing. */
  async function takeOver(errno: number, options: HandCaptureOptions = {}): Promise<HandCapture> {
    const capture = handCapture(host, await host.facts(), { nodes: [B], ...options });
    const monitor = await host.monitor();
    for (const [name, call] of capture.calls) {
      if (name === "target-0") await addFailing(capture, monitor, errno);
      else if (name !== "watch-0" && name !== "close" && name !== "check") await call();
    }
    monitor.close();
    return capture;
  }

  async function addFailing(capture: HandCapture, monitor: TestMonitor, errno: number) {
    const path = (await host.capture(capture.id))?.scratch["0"];
    const job = capture.open.jobs[0] ?? "";
    await monitor.execute("blockdev-add", {
      driver: "qcow2",
      "node-name": `${job}t`,
      file: {
        driver: "blkdebug",
        "node-name": `${job}f`,
        image: { driver: "file", filename: path },
        "inject-error": [{ event: "write_aio", iotype: "write", errno, once: false, immediately: true }],
      },
      backing: B,
    });
  }

  for (const [what, errno] of [
    ["full", 28],
    ["broken (EIO)", 5],
  ] as const) {
    test(`a fleece that is ${what}: the guest waits a moment and its writes are right`, async () => {
      await guestOverwrites();
      const capture = await takeOver(errno);
      await guestOverwrites();
      assert.match(
        (await phaseOf(capture, "given-up"))?.reason ?? "",
        /a write of the guest failed|job .* error|stopped on an I\/O error/,
      );
      await clean();
    });

    test(`the same (${what}) while guard and service are dead: the guest goes on when the guard is back`, async () => {
      const capture = await takeOver(errno);
      await host.kill("SIGKILL");
      const writing = guestOverwrites();
      const monitor = await host.monitor();
      const status = () => monitor.execute("query-status") as Promise<{ status: string }>;
      await until("stopped", status, (now) => now.status === "io-error", SLOW_MS);
      monitor.close();
      await host.start();
      await writing;
      assert.match((await phaseOf(capture, "given-up"))?.reason ?? "", /I\/O error|a write of the guest failed/);
      await clean();
    });
  }

  test("a guest that powers off in mid-copy leaves its frozen source; a start boots it in the same process", async () => {
    const capture = handCapture(host, await host.facts());
    await capture.take();
    const { pid, incarnation } = await host.state();
    await inGuest("poweroff").catch(() => {});
    const off = await until(
      "off",
      () => host.state(),
      (now) => now.status === "shutdown",
    );
    assert.deepEqual([off.reason, off.pid, off.process], ["guest-shutdown", pid, "up"]);
    assert.equal((await host.guard.call("capture.check", { capture: capture.id })).phase, "taken");
    const on = await host.guard.call("vm.start", { spec });
    assert.deepEqual([on.status, on.pid, on.incarnation], ["running", pid, incarnation]);
    await boots();
    await capture.close();
    await clean();
  });

  test("a polite power-off waits for the guest; then deallocating ends QEMU", async () => {
    const off = await host.guard.call("vm.powerOff", { vm: VM, graceMs: 60_000 }, 90_000);
    assert.deepEqual([off.status, off.reason], ["shutdown", "guest-shutdown"]);
    const down = await host.guard.call("vm.deallocate", { vm: VM, graceMs: 60_000 }, 90_000);
    assert.deepEqual([down.process, down.reason], ["down", "deallocated"]);
  });
});
