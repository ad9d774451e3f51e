/** A VM that Stillpoint did not start: adopted, captured, restored as an own one, and let go without a trace. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { buildGuest } from "../../setup/guest/index.ts";
import { bytes, MiB, type ResourceId, run, systemClock } from "../../src/base/index.ts";
import type { RestoreOutput, RestorePoint, Vm } from "../../src/domain/index.ts";
import { connectNbd } from "../../src/nbd/index.ts";
import { connectConsole, type GuestConsole } from "../../src/programs/quickstart/console.ts";
import { type Foreign, startForeign } from "./lib/foreign.ts";
import { agentAnswers, dataDisks, GROUP, openStack, putCollection, type Stack, takePoint } from "./lib/stack.ts";
import { digest, readPoint } from "./lib/truth.ts";

const SLOW_MS = 240_000;
const VM_ID = `${GROUP}/providers/Microsoft.Compute/virtualMachines/theirs` as ResourceId;

describe("an adopted UEFI machine with SCSI, an iothread and two NICs", () => {
  let stack: Stack;
  let foreign: Foreign;
  let guest: GuestConsole;
  let vm: Vm;
  let collection: ResourceId;
  let traces: Record<string, unknown>;

  const kinds = (point: RestorePoint) => point.record?.disks.map((disk) => `${disk.method} ${disk.kind}`);

  /** A point succeeds first and lets its capture go then. */
  async function untilReleased(): Promise<void> {
    for (let tries = 0; tries < 200; tries++) {
      if ((await stack.guard.call("capture.list", {})).length === 0) return;
      await systemClock.sleep(50);
    }
    throw new Error("a capture was not released in time");
  }

  /** The owner's VM stands still: its files are the truth about the point. */
  async function assertHoldsImages(point: RestorePoint): Promise<void> {
    const files = [foreign.disks.os, foreign.disks.c, foreign.disks.b];
    for (const [index, disk] of point.disks.entries()) {
      const [stored, truth] = [join(stack.dir, "stored.raw"), join(stack.dir, "truth.raw")];
      await readPoint(stack.repository, disk, stored);
      await run("qemu-img", ["convert", "-U", "-f", disk.format, "-O", "raw", files[index] ?? "", truth], SLOW_MS);
      assert.equal(await digest(stored), await digest(truth), `disk ${disk.diskName} of ${point.name}`);
    }
  }

  before(async () => {
    const image = await buildGuest(() => {});
    stack = await openStack();
    const data = await dataDisks(stack, 64 * MiB);
    foreign = await startForeign(stack, {
      name: "theirs",
      images: { os: image.osDisk, b: data.b, c: data.c },
      flash: "blockdev",
    });
    guest = await connectConsole(foreign.consoleSocket, systemClock);
    await guest.run("until [ -e /run/written ]; do sleep 0.1; done", SLOW_MS);
    await ownersThings(foreign);
    traces = await foreign.traces();
  });
  after(async () => {
    guest?.close();
    await foreign?.close();
    await stack?.close();
  });

  test("its disks, firmware and network cards are found over QMP", async () => {
    const { qmpSocket, qgaSocket } = foreign;
    const put = await stack.domain.importVm({
      id: VM_ID,
      location: stack.config.region,
      tags: {},
      qmpSocket,
      qgaSocket,
    });
    await stack.done(put.operation);
    vm = await stack.domain.getVm(VM_ID);
    assert.deepEqual([vm.control, vm.vcpus, vm.memoryMiB], ["adopted", 1, 256]);
    assert.deepEqual([vm.machine.machineType, vm.machine.firmware], ["q35", "uefi"]);
    assert.deepEqual(vm.machine.nics, [
      { mac: "52:54:00:aa:bb:01", model: "virtio-net-pci" },
      { mac: "52:54:00:aa:bb:02", model: "e1000" },
    ]);
    const ids = [vm.osDisk, ...vm.dataDisks].map((disk) => disk?.diskId as ResourceId);
    const disks = await Promise.all(ids.map((id) => stack.domain.getDisk(id)));
    assert.deepEqual(
      disks.map((disk) => [disk.path, disk.format, disk.origin]),
      [
        [foreign.disks.os, "qcow2", "foreign"],
        [foreign.disks.c, "raw", "foreign"],
        [foreign.disks.b, "qcow2", "foreign"],
      ],
    );
    const hardware = ids.map((id) => vm.machine.disks[id.toLowerCase()]);
    assert.deepEqual(
      hardware.map((one) => [one?.bus, one?.iothread, one?.bootIndex]),
      [
        ["virtio-blk", false, 1],
        ["virtio-blk", false, null],
        ["virtio-scsi", true, null],
      ],
    );
    assert.deepEqual([hardware[0]?.serial, hardware[2]?.serial], ["OSDISK", "BDISK"]);
    collection = await putCollection(stack, vm, "theirs");
  });

  test("points are full and then incremental; bitmaps are volatile; the owner's things stay", async () => {
    const first = await takePoint(stack, collection, "first");
    assert.deepEqual(kinds(first), ["pull full", "pull full", "push full"]);
    assert.notEqual(first.nvram, null, "the UEFI variables are in the point");
    const second = await takePoint(stack, collection, "second", null);
    assert.deepEqual(kinds(second), ["pull incremental", "pull incremental", "push full-compared"]);
    assert.equal(second.record?.reachedMode, "FileSystemConsistent");
    assert.deepEqual(second.record?.alarms, []);
    await untilReleased();
    const facts = await stack.guard.call("vm.inspect", { vm: vm.vmUid });
    const ours = facts.disks.flatMap((disk) => disk.bitmaps.filter((one) => one.name.startsWith("sp-")));
    assert.equal(ours.length, 2);
    assert.ok(ours.every((bitmap) => !bitmap.persistent));
    assertContains(await foreign.traces(), traces);
  });

  test("while somebody else's NBD server runs, every disk is pushed and that server serves on", async () => {
    const socket = join(stack.dir, "sockets/owners.nbd");
    await foreign.owner.execute("nbd-server-start", { addr: { type: "unix", data: { path: socket } } });
    await foreign.owner.execute("block-export-add", {
      type: "nbd",
      id: "owners-export",
      "node-name": "owners-source",
      name: "theirs",
    });
    const reader = await connectNbd({ socketPath: socket, exportName: "theirs", depth: 1, requestTimeoutMs: 10_000 });
    try {
      await foreign.owner.execute("stop");
      const point = await takePoint(stack, collection, "beside");
      await assertHoldsImages(point);
      await foreign.owner.execute("cont");
      assert.deepEqual(kinds(point), ["push full-compared", "push full-compared", "push full-compared"]);
      assert.match(point.record?.disks[0]?.fullReason ?? "", /NBD server/);
      await reader.readInto(bytes(0), Buffer.alloc(4096));
    } finally {
      await foreign.owner.execute("block-export-del", { id: "owners-export", mode: "hard" });
      await reader.close();
      await foreign.owner.execute("nbd-server-stop");
    }
    await foreign.owner.execute("stop");
    const point = await takePoint(stack, collection, "alone");
    await assertHoldsImages(point);
    await foreign.owner.execute("cont");
    assert.deepEqual(kinds(point), ["pull full-compared", "pull full-compared", "push full-compared"]);
  });

  test("a disk in the hands of the owner's job is not captured, and the job goes on", async () => {
    await foreign.owner.execute("blockdev-mirror", {
      "job-id": "owners-mirror",
      device: "osnode",
      target: "owners-mirror-target",
      sync: "full",
      speed: 65536,
    });
    await assert.rejects(takePoint(stack, collection, "busy"), /another job \(mirror_top\)/);
    const jobs = (await foreign.owner.execute("query-jobs")) as readonly { readonly id: string }[];
    assert.ok(jobs.some((job) => job.id === "owners-mirror"));
    await foreign.owner.execute("block-job-cancel", { device: "owners-mirror", force: true });
    await untilReleased();
  });

  test("its point boots as an own UEFI machine with its variables", async () => {
    const point = `${collection}/restorePoints/second` as ResourceId;
    const operation = await stack.domain.restore({
      pointId: point,
      targetGroup: GROUP,
      vmName: "ours",
      diskNames: {},
      onlyDisks: [],
      start: true,
      keepIdentity: false,
    });
    const { vm: id, notRestored } = (await stack.done(operation)).output as RestoreOutput;
    assert.deepEqual(notRestored, []);
    const ours = await stack.domain.getVm(id as ResourceId);
    assert.deepEqual([ours.control, ours.machine.firmware, ours.machine.machineType], ["own", "uefi", "q35"]);
    assert.deepEqual(
      ours.machine.nics.map((nic) => nic.model),
      ["virtio-net-pci", "e1000"],
    );
    await agentAnswers(stack, ours);
    const facts = await stack.guard.call("vm.inspect", { vm: ours.vmUid });
    assert.ok(facts.nvram?.path.endsWith(`${ours.vmUid}.fd`));
    await stack.done(await stack.domain.deallocateVm(ours.id));
  });

  test("released, its QEMU and the capture folder are as if Stillpoint had never been there", async () => {
    const released = await stack.domain.releaseVm(VM_ID);
    if (released !== "done") await stack.done(released);
    assert.deepEqual(await foreign.traces(), traces);
    await assert.rejects(stack.domain.getVm(VM_ID), { code: "ResourceNotFound" });
    await guest.run("true", SLOW_MS);
    assert.equal((await stack.domain.getPoint(`${collection}/restorePoints/second` as ResourceId)).state, "Succeeded");
  });
});

/** What an owner may have in his QEMU: a bitmap, a running job with its nodes. (A snapshot is in the image.) */
async function ownersThings({ owner }: Foreign): Promise<void> {
  await owner.execute("block-dirty-bitmap-add", { node: "osnode", name: "owners-bitmap" });
  const empty = { driver: "null-co", "read-zeroes": true };
  for (const name of ["owners-source", "owners-target"])
    await owner.execute("blockdev-add", { ...empty, "node-name": name, size: 1024 * MiB });
  await owner.execute("blockdev-add", { ...empty, "node-name": "owners-mirror-target", size: 192 * MiB });
  const job = { "job-id": "owners-job", device: "owners-source", target: "owners-target", sync: "full", speed: 65536 };
  await owner.execute("blockdev-backup", job);
}

function assertContains(now: Record<string, unknown>, before: Record<string, unknown>): void {
  for (const [kind, names] of Object.entries(before))
    for (const name of names as readonly string[])
      assert.ok((now[kind] as readonly string[]).includes(name), `${kind}: ${name} is gone`);
}
