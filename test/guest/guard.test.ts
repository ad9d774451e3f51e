/** The guard on a real QEMU whose machine has no operating system: power, captures, adoption, its own death. */
import assert from "node:assert/strict";
import { copyFile, readdir, readFile, readlink, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { MiB } from "../../src/base/index.ts";
import type { MachineSpec } from "../../src/guard/protocol.ts";
import { handCapture } from "./lib/guardCapture.ts";
import { type GuardHost, openGuardHost, qemuVersions, smallMachine, until, VM } from "./lib/guardHost.ts";

for (const { label, qemu } of qemuVersions())
  describe(`an own VM under guard, ${label}`, () => {
    let host: GuardHost;
    let spec: MachineSpec;
    let os = "";
    let data = "";
    before(async () => {
      host = await openGuardHost({ qemu });
      await host.start();
      spec = await smallMachine(host, [
        { bootIndex: 1 },
        { format: "raw", bus: "virtio-scsi", iothread: true },
        { iothread: true, sizeMiB: 32 },
      ]);
      [os = "", , data = ""] = spec.disks.map((disk) => disk.node);
      await host.guard.call("vm.start", { spec });
    });
    after(() => host?.close());
    afterEach(async () => {
      for (const { capture } of await host.guard.call("capture.list", {})) {
        await host.guard.call("capture.giveUp", { capture, reason: "end of the test" });
        await host.guard.call("capture.close", { capture, steps: [] });
      }
      await host.guard.call("vm.start", { spec });
    });

    test("QEMU is alone in its session, in its sandbox, with nothing of the guard's but its log", async () => {
      const { pid } = await host.state();
      const status = await readFile(`/proc/${pid}/status`, "utf8");
      assert.match(status, /^Seccomp:\t2$/m);
      assert.match(status, /^NoNewPrivs:\t1$/m);
      assert.match(status, /^Umask:\t0077$/m);
      const uid = /^Uid:\t(\d+)\t/m.exec(status)?.[1];
      assert.equal(Number(uid), process.getuid?.());
      const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ")[1]?.split(" ") ?? [];
      assert.equal(Number(fields[3]), pid, "its session is its own");
      for (const fd of ["0", "1", "2"])
        assert.match(await readlink(`/proc/${pid}/fd/${fd}`), fd === "0" ? /^\/dev\/null$/ : /qemu\.log$/);
      const args = (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0");
      assert.equal(
        args[args.indexOf("-sandbox") + 1],
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
      );
    });

    test("runtime folder 0700, its files and sockets for the owner only", async () => {
      const folder = join(host.dir, "data/vms", VM);
      assert.equal((await stat(folder)).mode & 0o777, 0o700);
      for (const name of await readdir(folder)) assert.equal((await stat(join(folder, name))).mode & 0o077, 0, name);
      assert.equal((await stat(join(host.dir, "data/guard.sock"))).mode & 0o777, 0o600);
      assert.equal((await stat(host.captureDir)).mode & 0o777, 0o700);
    });

    test("the facts are those of the machine that was asked for", async () => {
      const facts = await host.facts();
      const seen = facts.disks.map(
        ({ node, path, format, sizeBytes, iothread, serial, bootIndex, stopsOnWriteError, filters }) => ({
          ...{
            node,
            path,
            format,
            sizeBytes: Number(sizeBytes),
            iothread,
            serial,
            bootIndex,
            stopsOnWriteError,
            filters,
          },
        }),
      );
      assert.deepEqual(
        new Map(seen.map((disk) => [disk.node, disk])),
        new Map(
          spec.disks.map(({ node, path, format, iothread, serial, bootIndex }, index) => [
            node,
            {
              ...{ node, path, format, iothread, serial, bootIndex: bootIndex ?? null },
              ...{ sizeBytes: (index === 2 ? 32 : 64) * MiB, stopsOnWriteError: true, filters: [] },
            },
          ]),
        ),
      );
      assert.equal(facts.status, "running");
      assert.equal(facts.agent, "absent");
      assert.equal(facts.machine, null);
    });

    test("killing the guard leaves the guest alone, and the next guard finds it by its mark", async () => {
      const former = await host.state();
      await host.kill("SIGKILL");
      const monitor = await host.monitor();
      const { running } = (await monitor.execute("query-status")) as { running: boolean };
      assert.equal(running, true);
      monitor.close();
      await host.start();
      assert.deepEqual(await host.state(), former);
      await host.kill("SIGTERM");
      process.kill(former.pid ?? 0, 0);
      await host.start();
      assert.deepEqual(await host.state(), former);
    });

    test("power off and start in the middle of a capture: same process, same frozen source", async () => {
      const former = await host.state();
      const capture = handCapture(host, await host.facts(), { nodes: [os, data] });
      await capture.take();
      const off = await host.guard.call("vm.powerOff", { vm: VM, graceMs: 0 });
      assert.equal(off.process, "up");
      assert.equal(off.reason, "powered-off");
      assert.equal((await host.guard.call("capture.check", { capture: capture.id })).phase, "taken");
      const on = await host.guard.call("vm.start", { spec });
      assert.deepEqual(
        [on.status, on.pid, on.incarnation, on.reason],
        ["running", former.pid, former.incarnation, null],
      );
      const { phase } = await host.guard.call("capture.check", { capture: capture.id });
      assert.equal(phase, "taken");
      await capture.close();
    });

    test("deallocating waits for the capture, over a restart of the guard, and is called off by a start", async () => {
      const capture = handCapture(host, await host.facts(), { nodes: [os] });
      await capture.take();
      const first = await host.guard.call("vm.deallocate", { vm: VM, graceMs: 0 });
      assert.deepEqual([first.process, first.quitting, first.reason], ["up", true, "powered-off"]);
      await host.kill("SIGKILL");
      await host.start();
      assert.deepEqual([(await host.state()).quitting, (await host.state()).reason], [true, "powered-off"]);
      const bigger = { ...spec, memoryMiB: 128 };
      await assert.rejects(host.guard.call("vm.start", { spec: bigger }), { code: "OperationNotAllowed" });
      await host.guard.call("vm.start", { spec });
      assert.equal((await host.state()).quitting, false);
      await host.guard.call("vm.deallocate", { vm: VM, graceMs: 0 });
      await capture.close();
      assert.deepEqual([(await host.state()).process, (await host.state()).reason], ["down", "deallocated"]);
      const facts = await host.guard.call("vm.start", { spec: bigger });
      assert.equal(facts.status, "running");
      await host.guard.call("vm.start", { spec });
      await host.guard.call("vm.deallocate", { vm: VM, graceMs: 0 });
    });

    test("a start that cannot be says QEMU's own words", async () => {
      await host.guard.call("vm.deallocate", { vm: VM, graceMs: 0 });
      const [disk] = spec.disks;
      assert.ok(disk);
      const broken = { ...spec, disks: [{ ...disk, path: join(host.dir, "pool/none.qcow2") }] };
      await assert.rejects(host.guard.call("vm.start", { spec: broken }), /Could not open.*none\.qcow2.*No such file/);
      assert.match((await host.state()).reason ?? "", /^exit code 1: .*none\.qcow2/);
      await assert.rejects(host.guard.call("vm.inspect", { vm: VM }), { code: "HypervisorUnavailable" });
    });

    test("UEFI firmware: the variables are a node of their own, apart from the disks", async () => {
      const varsPath = join(host.dir, "pool/vars.fd");
      await copyFile("/usr/share/OVMF/OVMF_VARS_4M.fd", varsPath);
      await host.guard.call("vm.deallocate", { vm: VM, graceMs: 0 });
      await host.guard.call("vm.start", { spec: { ...spec, firmware: { kind: "uefi", varsPath } } });
      const facts = await host.facts();
      assert.deepEqual(facts.nvram, { node: "nvram", sizeBytes: (await stat(varsPath)).size, path: varsPath });
      assert.equal(facts.disks.length, spec.disks.length);
      await host.guard.call("vm.deallocate", { vm: VM, graceMs: 0 });
    });

    test("forgetting needs a VM that is down, and leaves nothing of it", async () => {
      await assert.rejects(host.guard.call("vm.forget", { vm: VM }), { code: "OperationNotAllowed" });
      await host.guard.call("vm.deallocate", { vm: VM, graceMs: 0 });
      await host.guard.call("vm.forget", { vm: VM });
      assert.deepEqual(await host.guard.call("vm.list", {}), []);
      assert.deepEqual(await readdir(join(host.dir, "data/vms")), []);
      await host.guard.call("vm.forget", { vm: VM });
    });

    test("QEMU killed in mid-copy: the capture is lost, its files are gone, the next start is clean", async () => {
      const capture = handCapture(host, await host.facts(), { nodes: [os] });
      await capture.take();
      process.kill((await host.state()).pid ?? 0, "SIGKILL");
      const lost = await until(
        "lost",
        () => host.capture(capture.id),
        (state) => state?.phase === "lost",
      );
      assert.match(lost?.reason ?? "", /SIGKILL|ended/);
      await until(
        "files gone",
        () => readdir(host.captureDir),
        (names) => names.length === 0,
      );
      const [step] = capture.closeSteps;
      assert.ok(step);
      await assert.rejects(host.guard.call("capture.step", { capture: capture.id, step }), /was lost/);
      await capture.close();
      assert.equal(await host.capture(capture.id), undefined);
      await host.guard.call("vm.start", { spec });
      assert.deepEqual((await host.facts()).jobs, []);
    });

    test("two captures at once share the NBD server, which goes with the last", async () => {
      const facts = await host.facts();
      const first = handCapture(host, facts, { nodes: [os] });
      const second = handCapture(host, facts, { nodes: [data] });
      await first.take();
      await second.take();
      await first.close();
      assert.equal((await host.guard.call("capture.check", { capture: second.id })).phase, "taken");
      assert.deepEqual((await host.facts()).exports, [second.open.jobs[0]]);
      await second.close();
      assert.deepEqual(await readdir(host.captureDir), []);
    });
  });
