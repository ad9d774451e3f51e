/** VMs that somebody else has started: adoption, facts, rights, release, and monitors that lie. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, chown, copyFile, mkdir, readdir, symlink } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { run } from "../../src/base/index.ts";
import { connectQmp } from "../../src/hypervisors/qmp/index.ts";
import { handCapture } from "./lib/guardCapture.ts";
import { type GuardHost, openGuardHost, until, VM } from "./lib/guardHost.ts";

describe("a VM of somebody else", () => {
  let host: GuardHost;
  let qemu: ChildProcess | null = null;
  let folder = "";
  const qmpSocket = () => join(folder, "qmp.sock");
  const adopt = (qmp = qmpSocket(), qga: string | null = null) =>
    host.guard.call("vm.adopt", { vm: VM, qmpSocket: qmp, qgaSocket: qga });

  before(async () => {
    host = await openGuardHost();
    await host.start();
    folder = join(host.dir, "sockets");
    await run("qemu-img", ["create", "-q", "-f", "qcow2", join(host.dir, "pool/a.qcow2"), "64M"], 10_000);
    await run("qemu-img", ["create", "-q", "-f", "raw", join(host.dir, "pool/b.raw"), "32M"], 10_000);
    await copyFile("/usr/share/OVMF/OVMF_VARS_4M.fd", join(host.dir, "pool/vars.fd"));
  });
  after(async () => {
    await endQemu();
    await host?.close();
  });
  afterEach(async () => {
    for (const { capture } of await host.guard.call("capture.list", {}))
      await host.guard.call("capture.close", { capture, steps: [] });
    await host.guard.call("vm.release", { vm: VM, steps: [] });
    await endQemu();
  });

  /** A QEMU as an administrator would start it: old-style drives, firmware by drive, two monitors. */
  async function startQemu(more: readonly string[] = [], as: { uid?: number; umask?: string } = {}): Promise<void> {
    const pool = join(host.dir, "pool");
    const args = [
      ...[
        "-nodefaults",
        "-display",
        "none",
        "-machine",
        "q35",
        "-accel",
        "tcg",
        "-cpu",
        "qemu64",
        "-smp",
        "2",
        "-m",
        "96",
      ],
      ...[
        "-qmp",
        `unix:${qmpSocket()},server=on,wait=off`,
        "-qmp",
        `unix:${join(folder, "own.sock")},server=on,wait=off`,
      ],
      ...["-drive", `file=${pool}/a.qcow2,format=qcow2,if=virtio`],
      ...more,
    ];
    const command = `umask ${as.umask ?? "077"}; exec qemu-system-x86_64 "$@"`;
    const out = process.env["VERBOSE"] ? "inherit" : "ignore";
    const ids = as.uid === undefined ? {} : { uid: as.uid, gid: as.uid };
    qemu = spawn("/bin/sh", ["-c", command, "sh", ...args], { stdio: ["ignore", out, out], ...ids });
    const own = await until(
      "monitor",
      () => connectQmp({ path: join(folder, "own.sock"), onEvent: () => {} }).catch(() => null),
      (found) => found !== null,
    );
    own?.close();
  }

  async function endQemu(): Promise<void> {
    if (!qemu || qemu.exitCode !== null || qemu.signalCode !== null) return;
    qemu.kill("SIGKILL");
    await once(qemu, "exit");
  }

  /** What the owner sees of his QEMU. */
  async function ownersView(): Promise<unknown> {
    const own = await connectQmp({ path: join(folder, "own.sock"), onEvent: () => {} });
    const look = (command: string, args = {}) => own.execute(command, args);
    const seen = {
      objects: (await look("qom-list", { path: "/objects" })) as { name: string }[],
      nodes: ((await look("query-named-block-nodes", { flat: true })) as { "node-name": string }[]).map(
        (node) => node["node-name"],
      ),
      jobs: await look("query-jobs"),
      exports: await look("query-block-exports"),
      bitmaps: ((await look("query-block")) as { inserted?: { "dirty-bitmaps"?: unknown } }[]).map(
        (one) => one.inserted?.["dirty-bitmaps"],
      ),
      files: await readdir(host.captureDir).catch(() => []),
    };
    own.close();
    return seen;
  }

  test("its machine is found out over QMP: old-style drives, SCSI in an iothread, firmware, two network cards", async () => {
    const pool = join(host.dir, "pool");
    await startQemu([
      ...["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"],
      ...["-drive", `if=pflash,format=raw,file=${pool}/vars.fd`],
      ...["-object", "iothread,id=io0", "-device", "virtio-scsi-pci,id=scsi0,iothread=io0"],
      ...["-drive", `file=${pool}/b.raw,format=raw,if=none,id=b`, "-device", "scsi-hd,drive=b,serial=SB,bootindex=2"],
      ...["-device", "virtio-net-pci,mac=52:54:00:aa:bb:01", "-device", "e1000,mac=52:54:00:aa:bb:02"],
      ...["-object", "memory-backend-memfd,size=1M,id=shm,share=on", "-device", "ivshmem-plain,memdev=shm,id=shared"],
    ]);
    const facts = await adopt();
    assert.equal(facts.kind, "adopted");
    assert.deepEqual(
      facts.disks.map(({ path, format, iothread, serial, bootIndex, stopsOnWriteError }) => ({
        ...{ path, format, iothread, serial, bootIndex, stopsOnWriteError },
      })),
      [
        {
          path: `${pool}/a.qcow2`,
          format: "qcow2",
          iothread: false,
          serial: "",
          bootIndex: null,
          stopsOnWriteError: false,
        },
        { path: `${pool}/b.raw`, format: "raw", iothread: true, serial: "SB", bootIndex: 2, stopsOnWriteError: false },
      ],
    );
    assert.equal(facts.nvram?.path, `${pool}/vars.fd`);
    assert.equal(facts.nvram?.sizeBytes, 540672);
    assert.deepEqual(facts.uncapturable, ["ivshmem-plain shared"]);
    const { machine } = facts;
    assert.match(machine?.machineType ?? "", /^pc-q35-/);
    assert.deepEqual(
      [machine?.cpuModel, machine?.vcpus, machine?.memoryMiB, machine?.firmware],
      ["qemu64", 2, 96, "uefi"],
    );
    assert.deepEqual(
      machine?.disks.map((disk) => disk.bus),
      ["virtio-blk", "virtio-scsi"],
    );
    assert.deepEqual(machine?.nics.map((nic) => nic.mac).sort(), ["52:54:00:aa:bb:01", "52:54:00:aa:bb:02"]);
  });

  test("released it is as it was, after a point, over a restart of the guard", async () => {
    await startQemu();
    const before = await ownersView();
    const facts = await adopt();
    const capture = handCapture(host, facts);
    await capture.take();
    await host.kill("SIGKILL");
    await host.start();
    assert.equal((await host.facts()).incarnation, facts.incarnation);
    assert.equal((await host.guard.call("capture.check", { capture: capture.id })).phase, "taken");
    await assert.rejects(host.guard.call("vm.release", { vm: VM, steps: [] }), { code: "OperationNotAllowed" });
    await capture.close();
    const { disks } = await host.facts();
    const bitmap = disks[0]?.bitmaps[0]?.name;
    assert.ok(bitmap);
    const step = {
      name: "bitmap",
      execute: "block-dirty-bitmap-remove",
      arguments: { node: disks[0]?.node, name: bitmap },
    };
    await host.guard.call("vm.release", { vm: VM, steps: [step] });
    assert.deepEqual(await ownersView(), before);
    assert.deepEqual(await host.guard.call("vm.list", {}), []);
  });

  test("power is its owner's business", async () => {
    await startQemu();
    await adopt();
    for (const call of ["vm.powerOff", "vm.deallocate"] as const)
      await assert.rejects(host.guard.call(call, { vm: VM, graceMs: 0 }), { code: "OperationNotAllowed" });
    await assert.rejects(host.guard.call("vm.forget", { vm: VM }), { code: "OperationNotAllowed" });
  });

  test("its end is the end of its capture; started again it is another life", async () => {
    await startQemu();
    const facts = await adopt();
    const capture = handCapture(host, facts);
    await capture.take();
    await endQemu();
    await until(
      "lost",
      () => host.capture(capture.id),
      (now) => now?.phase === "lost",
    );
    await startQemu();
    const again = await until(
      "up again",
      () => host.state(),
      (now) => now.process === "up",
    );
    assert.notEqual(again.incarnation, facts.incarnation);
    assert.equal((await host.capture(capture.id))?.phase, "lost");
  });

  test("an NBD server of its owner is left alone, and said so", async () => {
    await startQemu();
    const own = await connectQmp({ path: join(folder, "own.sock"), onEvent: () => {} });
    const addr = { type: "unix", data: { path: join(folder, "theirs.nbd") } };
    await own.execute("nbd-server-start", { addr });
    const capture = handCapture(host, await adopt());
    await assert.rejects(capture.take(), /An NBD server that is not Stillpoint's/);
    await host.guard.call("capture.giveUp", { capture: capture.id, reason: "no server" });
    await host.guard.call("capture.close", { capture: capture.id, steps: [] });
    await own.execute("nbd-server-stop");
    own.close();
  });

  test("a monitor that is held by another client: the error tells how to add one", async () => {
    await startQemu();
    const holder = await connectQmp({ path: qmpSocket(), onEvent: () => {} });
    await assert.rejects(adopt(), /did not greet.*-qmp unix:PATH,server=on,wait=off/);
    assert.deepEqual(await host.guard.call("vm.list", {}), []);
    holder.close();
    await adopt();
  });

  test("sockets outside the configured folders are not touched", async () => {
    await startQemu();
    const outside = join(host.dir, "outside");
    await mkdir(outside, { recursive: true });
    await symlink(qmpSocket(), join(folder, "link.sock")).catch(() => {});
    await symlink(outside, join(folder, "way-out")).catch(() => {});
    for (const path of [
      join(host.dir, "data/guard.sock"),
      join(folder, "../data/guard.sock"),
      join(folder, "way-out/x.sock"),
      join(folder, "link.sock"),
      join(folder, "none.sock"),
      "qmp.sock",
    ])
      await assert.rejects(adopt(path), { code: "InvalidParameter" }, path);
    assert.deepEqual(await host.guard.call("vm.list", {}), []);
  });

  test("a monitor that lies loses its adoption and nothing else", async () => {
    const greeting = '{"QMP": {"version": {"qemu": {"micro": 1, "minor": 0, "major": 9}}}}\n';
    const lies: Readonly<Record<string, string>> = {
      "no object": "7",
      "a list of numbers": "[1,2,3]",
      "a path for a status": '{"status": ["../../etc"]}',
      "a huge name": JSON.stringify({ status: "x".repeat(100_000) }),
      "a list without end": JSON.stringify(Array.from({ length: 5000 }, () => ({}))),
    };
    for (const [what, lie] of Object.entries(lies)) {
      const path = join(folder, "liar.sock");
      const sockets = new Set<Socket>();
      const server = createServer((socket) => {
        sockets.add(socket);
        socket.on("error", () => {});
        socket.write(greeting);
        socket.on("data", (chunk) => {
          for (const line of chunk.toString().trim().split("\n")) {
            const { id, execute } = JSON.parse(line);
            socket.write(`{"id": ${id}, "return": ${execute === "qmp_capabilities" ? "{}" : lie}}\n`);
          }
        });
      });
      await new Promise<void>((resolve) => server.listen(path, resolve));
      await assert.rejects(adopt(path), { code: "HypervisorUnavailable" }, what);
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
      assert.deepEqual(await host.guard.call("vm.list", {}), [], what);
    }
  });

  test("a QEMU of another user without rights: the error gives the commands, and they help", async (t) => {
    if (process.getuid?.() !== 0) return t.diagnostic("only root can start a QEMU of another user");
    const nobody = 65534;
    await openTo(nobody);
    await startQemu([], { uid: nobody, umask: "022" });
    await assert.rejects(adopt(), (error: Error & { code: string }) => {
      assert.equal(error.code, "OperationNotAllowed");
      assert.match(error.message, /Permission denied/);
      for (const words of [
        "groupadd -f stillpoint-capture",
        `usermod -aG stillpoint-capture "$(id -nu ${nobody})"`,
        `chmod 2770 '${host.captureDir}'`,
      ])
        assert.ok(error.message.includes(words), `${words} in ${error.message}`);
      return true;
    });
    assert.deepEqual(await readdir(host.captureDir), []);
    // What the commands do, with the group that this QEMU is in already.
    await chown(host.captureDir, 0, nobody);
    await chmod(host.captureDir, 0o2770);
    const capture = handCapture(host, await adopt());
    await capture.take();
    assert.equal((await host.guard.call("capture.check", { capture: capture.id })).phase, "taken");
    await capture.close();
  });

  async function openTo(uid: number): Promise<void> {
    await chmod(host.dir, 0o711);
    await chmod(join(host.dir, "pool"), 0o711);
    await chown(join(host.dir, "pool/a.qcow2"), uid, uid);
    await chown(folder, uid, uid);
  }
});
