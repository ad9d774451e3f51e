/** Adoptions that must be refused, with what mends it, and machines that are more than a point can hold. */
import assert from "node:assert/strict";
import { copyFile, mkdir, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { buildGuest } from "../../setup/guest/index.ts";
import { MiB, type ResourceId, systemClock } from "../../src/base/index.ts";
import type { RestoreOutput, Vm } from "../../src/domain/index.ts";
import { type Foreign, startForeign } from "./lib/foreign.ts";
import { agentAnswers, dataDisks, GROUP, openStack, putCollection, type Stack, takePoint } from "./lib/stack.ts";

const vmId = (name: string) => `${GROUP}/providers/Microsoft.Compute/virtualMachines/${name}` as ResourceId;

describe("adoptions at the edges", () => {
  let stack: Stack;
  let images: { readonly os: string; readonly b: string; readonly c: string };

  before(async () => {
    const image = await buildGuest(() => {});
    stack = await openStack();
    const data = await dataDisks(stack, 32 * MiB);
    images = { os: image.osDisk, b: data.b, c: data.c };
  });
  after(() => stack?.close());

  async function adopt(name: string, qmpSocket: string, qgaSocket: string | null = null): Promise<ResourceId> {
    const id = vmId(name);
    const put = await stack.domain.importVm({ id, location: stack.config.region, tags: {}, qmpSocket, qgaSocket });
    await stack.done(put.operation);
    return id;
  }

  async function refused(name: string, qmpSocket: string, qgaSocket: string | null, message: RegExp): Promise<void> {
    await assert.rejects(adopt(name, qmpSocket, qgaSocket), { message });
    await assert.rejects(stack.domain.getVm(vmId(name)), { code: "ResourceNotFound" });
    assert.deepEqual(await stack.guard.call("vm.list", {}), [], "the guard has let it go");
  }

  test("sockets are accepted below the configured folders only, links resolved", async () => {
    const sockets = join(stack.dir, "sockets");
    const outside = join(stack.dir, "outside");
    await mkdir(outside);
    const server = createServer((socket) => socket.destroy()).listen(join(outside, "q.sock"));
    try {
      await symlink(outside, join(sockets, "folder"));
      await symlink(join(outside, "q.sock"), join(sockets, "link.sock"));
      await writeFile(join(sockets, "file.sock"), "");
      const cases: readonly (readonly [string, RegExp])[] = [
        [join(outside, "q.sock"), /outside.*host\.socketDirs/],
        [join(sockets, "folder/q.sock"), /outside.*host\.socketDirs/],
        [join(sockets, "link.sock"), /no socket/],
        [join(sockets, "file.sock"), /no socket/],
        [join(sockets, "none.sock"), /does not exist/],
        [`${sockets}/../outside/q.sock`, /absolute path/],
        ["sockets/q.sock", /absolute path/],
      ];
      for (const [path, message] of cases) await refused("wrong", path, null, message);
    } finally {
      server.close();
    }
  });

  describe("of a machine whose disks lie in no pool", () => {
    let foreign: Foreign;
    before(async () => {
      const diskDir = join(stack.dir, "elsewhere");
      await mkdir(diskDir);
      foreign = await startForeign(stack, { name: "far", images, flash: "blockdev", diskDir, extra: ["-S"] });
    });
    after(() => foreign?.close());

    test("a monitor that somebody holds is named, with the way to add another", async () => {
      await refused("held", foreign.ownerSocket, null, /did not greet within 5000 ms.*-qmp unix:PATH/);
    });

    test("the disks are refused, and nothing of the attempt stays in QEMU", async () => {
      const traces = await foreign.traces();
      await refused("far", foreign.qmpSocket, foreign.qgaSocket, /elsewhere.*lies in no pool/);
      assert.deepEqual(await foreign.traces(), traces);
    });
  });

  describe("of a machine with more than a point can hold", () => {
    let foreign: Foreign;
    let collection: ResourceId;
    before(async () => {
      const pool = join(stack.dir, "pool");
      await copyFile(images.c, join(pool, "readonly.raw"));
      await copyFile(images.c, join(pool, "ide.raw"));
      foreign = await startForeign(stack, {
        name: "odd",
        images,
        flash: "drive",
        extra: [
          "-S",
          ...["-object", "memory-backend-ram,id=shm,size=1M,share=on", "-device", "ivshmem-plain,id=shared,memdev=shm"],
          ...["-device", "qemu-xhci,id=usb", "-device", "usb-tablet,bus=usb.0"],
          ...["-blockdev", `driver=raw,node-name=ro,read-only=on,file.driver=file,file.filename=${pool}/readonly.raw`],
          ...["-device", "virtio-blk-pci,id=rodev,drive=ro"],
          ...[
            "-blockdev",
            "driver=null-co,node-name=none,size=1048576",
            "-device",
            "virtio-blk-pci,id=nonedev,drive=none",
          ],
          ...["-blockdev", `driver=raw,node-name=ide,file.driver=file,file.filename=${pool}/ide.raw`],
          ...["-device", "ide-hd,id=idedev,drive=ide,serial=with space"],
        ],
      });
    });
    after(() => foreign?.close());

    test("the record says what is not captured, and the restored machine what it lacks", async () => {
      const traces = await foreign.traces();
      const id = await adopt("odd", foreign.qmpSocket, foreign.qgaSocket);
      const vm = await stack.domain.getVm(id);
      assert.equal(vm.machine.firmware, "uefi", "-drive if=pflash is firmware too");
      assert.equal(vm.dataDisks.length, 3);
      collection = await putCollection(stack, vm, "odd");
      const point = await takePoint(stack, collection, "odd", null);
      assert.match(point.record?.modeReason ?? "", /not running \(prelaunch\)/);
      assert.notEqual(point.nvram, null);
      assert.deepEqual(point.record?.notCaptured, [
        "ivshmem-plain shared",
        `disk /machine/peripheral/rodev/virtio-backend at ${stack.dir}/pool/readonly.raw, which is read-only`,
        "disk /machine/peripheral/nonedev/virtio-backend, which is no file (null-co)",
      ]);
      const command = {
        pointId: point.id,
        targetGroup: GROUP,
        vmName: "even",
        diskNames: {},
        onlyDisks: [],
        start: true,
        keepIdentity: true,
      };
      await assert.rejects(stack.domain.restore(command), { message: /is paused.*identity/ });
      const released = await stack.domain.releaseVm(id);
      if (released !== "done") await stack.done(released);
      assert.deepEqual(await foreign.traces(), traces);
      const operation = await stack.domain.restore(command);
      const { vm: even, notRestored } = (await stack.done(operation)).output as RestoreOutput;
      const missing = notRestored.join("\n");
      for (const what of [
        /ivshmem-plain shared/,
        /rodev/,
        /nonedev/,
        /qemu-xhci usb/,
        /usb-tablet/,
        /UEFI variables/,
        /idedev.*virtio-blk/,
      ])
        assert.match(missing, what);
      await agentAnswers(stack, await stack.domain.getVm(even as ResourceId));
    });
  });

  test("its QEMU ends and is started anew: told, read in full, and let go either way", async () => {
    const wish = { name: "again", images, flash: "blockdev", extra: ["-S"] } as const;
    let foreign = await startForeign(stack, wish);
    try {
      const id = await adopt("again", foreign.qmpSocket, foreign.qgaSocket);
      const vm = await stack.domain.getVm(id);
      const collection = await putCollection(stack, vm, "again");
      const [excluded] = vm.dataDisks.map((disk) => disk.diskId);
      assert.ok(excluded);
      const first = await takePoint(stack, collection, "first", null, [excluded]);
      assert.equal(first.disks.length, 2);
      assert.deepEqual(first.record?.excludedDisks, [excluded]);
      assert.deepEqual(first.record?.notCaptured, [], "what was left out on request is no surprise");

      await foreign.close();
      await assert.rejects(takePoint(stack, collection, "none", null), {
        code: "HypervisorUnavailable",
        message: /QEMU has ended.*import it again/,
      });
      assert.equal((await stack.domain.vmPower(vm)).power, "deallocated");

      foreign = await startForeign(stack, wish);
      await untilPower(stack, vm, "paused");
      const second = await takePoint(stack, collection, "second", null);
      const [os] = second.record?.disks ?? [];
      assert.equal(os?.kind, "full-compared");
      assert.match(os?.fullReason ?? "", /process was restarted/);
      assert.equal(second.disks[0]?.lineage, first.disks[0]?.lineage, "the chain goes on");

      await foreign.close();
      const released = await stack.domain.releaseVm(id);
      if (released !== "done") await stack.done(released);
      await assert.rejects(stack.domain.getVm(id), { code: "ResourceNotFound" });
      assert.equal((await stack.domain.getPoint(second.id)).state, "Succeeded");
    } finally {
      await foreign.close();
    }
  });
});

async function untilPower(stack: Stack, vm: Vm, power: string): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if ((await stack.domain.vmPower(vm)).power === power) return;
    await systemClock.sleep(100);
  }
  throw new Error(`${vm.name} was not ${power} in time`);
}
