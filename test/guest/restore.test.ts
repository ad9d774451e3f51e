/** A destroyed guest comes back: whole, disk by disk, with and without its identity, with and without its source. */
import assert from "node:assert/strict";
import { truncate } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { buildGuest, LAYOUT } from "../../setup/guest/index.ts";
import { bytes, MiB, type ResourceId, StillpointError, systemClock } from "../../src/base/index.ts";
import type { Disk, RestoreOutput, RestorePoint, Vm } from "../../src/domain/index.ts";
import { connectConsole, type GuestConsole } from "../../src/programs/quickstart/console.ts";
import { isWiped } from "../../src/programs/quickstart/machine.ts";
import { inWriteOrder, lastNumbers, readSequence } from "../../src/programs/quickstart/sequences.ts";
import {
  agentAnswers,
  bootVm,
  dataDisks,
  GROUP,
  openStack,
  putCollection,
  type Stack,
  takePoint,
} from "./lib/stack.ts";
import { digest, readImage, readPoint } from "./lib/truth.ts";

const SLOW_MS = 240_000;
const MAC = "52:54:00:11:22:33";

describe("restoring a virtual machine that boots by BIOS", () => {
  let stack: Stack;
  let vm: Vm;
  let collection: ResourceId;
  let guest: GuestConsole;
  let point: RestorePoint;
  let confirmedBefore = 0;
  let writtenAfter = 0;

  const written = async () => Number((await guest.run("cat /run/written 2>/dev/null || echo 0", SLOW_MS)).trim());

  async function untilWritten(number: number): Promise<number> {
    for (let tries = 0; tries < 1_000; tries++) {
      const now = await written();
      if (now >= number) return now;
      await systemClock.sleep(100);
    }
    throw new Error(`the guest did not write number ${number} in time`);
  }

  before(async () => {
    const image = await buildGuest(() => {});
    stack = await openStack();
    const data = await dataDisks(stack, 64 * MiB);
    vm = await bootVm(
      stack,
      "vm",
      [
        { name: "os", from: image.osDisk, format: "qcow2" },
        { name: "b", from: data.b, format: "qcow2", iothread: true },
        { name: "c", from: data.c, format: "raw" },
      ],
      { nics: [{ mac: MAC, model: "virtio-net-pci" }] },
    );
    await agentAnswers(stack, vm);
    guest = await connectConsole(join(stack.config.dataDir, "vms", vm.vmUid, "console.sock"), systemClock);
    collection = await putCollection(stack, vm);
    const first = await untilWritten(10);
    await takePoint(stack, collection, "before");
    confirmedBefore = await untilWritten(first + 40);
    point = await takePoint(stack, collection, "point");
    writtenAfter = await written();
    await untilWritten(writtenAfter + 20);
    await guest.run("/etc/sp/destroy", SLOW_MS);
    guest.close();
  });
  after(async () => {
    guest?.close();
    await stack?.close();
  });

  const restored = async (command: Parameters<typeof restoreCommand>[1]) => {
    const operation = await stack.done(await stack.domain.restore(restoreCommand(point, command)));
    return operation.output as RestoreOutput;
  };
  const diskOf = (id: ResourceId | undefined): Promise<Disk> => stack.domain.getDisk(id as ResourceId);
  const imageOf = (disk: Disk) => ({ path: disk.path ?? "", format: disk.format });

  /** What the repository holds of the n-th disk, through its own reader, as a raw file's digest. */
  async function storedDigest(index: number): Promise<string> {
    const file = join(stack.dir, "stored.raw");
    const disk = point.disks[index];
    assert.ok(disk);
    await readPoint(stack.repository, disk, file);
    return digest(file);
  }

  async function imageDigest(disk: Disk): Promise<string> {
    const file = join(stack.dir, "image.raw");
    await readImage(disk.path ?? "", disk.format, file);
    return digest(file);
  }

  test("its identity is refused to a second machine while the source runs", async () => {
    await assert.rejects(
      stack.domain.restore(restoreCommand(point, { vmName: "twin", keepIdentity: true })),
      (error: unknown) =>
        error instanceof StillpointError && error.status === 409 && /keepIdentity/.test(error.remedy ?? ""),
    );
    await assert.rejects(stack.domain.getVm(vmId("twin")), /twin/);
  });

  test("it boots from the restored OS disk with all that was written before the point, in order", async () => {
    assert.equal(point.record?.disks[0]?.kind, "incremental", "point 2 is an increment");
    const { vm: id, disks, notRestored } = await restored({ vmName: "back", start: true });
    assert.deepEqual(notRestored, []);
    const back = await stack.domain.getVm(id as ResourceId);
    assert.equal(back.provisioningState, "Succeeded");
    await agentAnswers(stack, back);
    assert.equal(back.control, "own");
    assert.notEqual(back.vmUid, vm.vmUid);
    assert.notEqual(back.machine.nics[0]?.mac, MAC);
    assert.equal(back.machine.nics[0]?.model, "virtio-net-pci");
    const [os, b, c] = await Promise.all(disks.map(diskOf));
    assert.deepEqual([os?.format, b?.format, c?.format], ["qcow2", "qcow2", "raw"]);
    assert.deepEqual(
      disks.map((disk) => back.machine.disks[disk.toLowerCase()]?.iothread),
      [false, true, false],
    );
    for (const disk of disks)
      assert.ok(!["os", "b", "c"].includes(back.machine.disks[disk.toLowerCase()]?.serial ?? ""), "new serials");
    await stack.done(await stack.domain.deallocateVm(back.id));
    assert.ok(os && b && c);
    const part = { offsetBytes: LAYOUT.rootOffsetBytes, sizeBytes: LAYOUT.rootBytes };
    const sequences = [
      await readSequence({ ...imageOf(os), ...part }),
      await readSequence(imageOf(b)),
      await readSequence(imageOf(c)),
    ];
    const boot = sequences[0]?.[0]?.boot;
    assert.ok(boot);
    const last = lastNumbers(sequences, boot);
    assert.ok(inWriteOrder(last), `no single instant can have left ${last}`);
    assert.ok(Math.min(...last) >= confirmedBefore, `${last}: ${confirmedBefore} were confirmed before the point`);
    assert.ok(Math.max(...last) <= writtenAfter + 1, `${last}: only ${writtenAfter} were written after the point`);
    assert.ok((sequences[0]?.length ?? 0) >= 2, "the restored guest went on writing in a boot of its own");
  });

  test("with its source deallocated it comes back with the same addresses and serials", async () => {
    await stack.done(await stack.domain.deallocateVm(vm.id));
    assert.ok(await isWiped((await diskOf(vm.osDisk?.diskId)).path ?? "", stack.dir), "the guest destroyed itself");
    const { vm: id, disks } = await restored({ vmName: "same", keepIdentity: true });
    const same = await stack.domain.getVm(id as ResourceId);
    assert.equal(same.machine.nics[0]?.mac, MAC);
    assert.deepEqual(
      disks.map((disk) => same.machine.disks[disk.toLowerCase()]?.serial),
      ["os", "b", "c"],
    );
    assert.equal((await stack.domain.vmPower(same)).power, "deallocated");
    for (const [index, disk] of disks.entries())
      assert.equal(await imageDigest(await diskOf(disk)), await storedDigest(index), `disk ${index}`);
  });

  test("a point that is being restored cannot be deleted, and can afterwards", async () => {
    const operation = await stack.domain.restore(
      restoreCommand(point, { onlyDisks: [point.disks[0]?.id as ResourceId] }),
    );
    await assert.rejects(stack.domain.deletePoint(point.id), { code: "Conflict", message: /being restored/ });
    const before = `${collection}/restorePoints/before` as ResourceId;
    const deleted = await stack.domain.deletePoint(before);
    assert.notEqual(deleted, null, "another point of the same virtual machine is free to go");
    if (deleted !== "done") await stack.done(deleted);
    const { output } = await stack.done(operation);
    const [disk] = (output as RestoreOutput).disks;
    assert.equal(await imageDigest(await diskOf(disk)), await storedDigest(0));
  });

  test("single disks: qcow2 as raw, raw as qcow2, into larger ones, byte for byte and zero behind", async () => {
    for (const [index, format] of [
      [1, "raw"],
      [2, "qcow2"],
    ] as const) {
      const source = point.disks[index];
      assert.ok(source);
      const id = diskId(`single-${index}`);
      const sizeBytes = bytes(160 * MiB);
      const put = await stack.domain.putDisk({
        id,
        location: stack.config.region,
        tags: {},
        sku: null,
        format,
        osType: null,
        hyperVGeneration: null,
        sizeBytes,
        creation: { createOption: "Restore", sourceResourceId: source.id },
      });
      await stack.done(put.operation);
      const disk = await diskOf(id);
      assert.equal(disk.format, format);
      assert.equal(disk.sizeBytes, sizeBytes);
      const stored = join(stack.dir, "stored.raw");
      await readPoint(stack.repository, source, stored);
      await truncate(stored, sizeBytes);
      assert.equal(await imageDigest(disk), await digest(stored));
    }
  });

  test("it comes back when its source, its disks and their files are gone", async () => {
    const disks = [vm.osDisk, ...vm.dataDisks].map((disk) => disk?.diskId as ResourceId);
    const gone = await stack.domain.deleteVm(vm.id);
    if (gone !== "done") await stack.done(gone);
    for (const disk of disks) {
      const deleted = await stack.domain.deleteDisk(disk);
      if (deleted !== "done") await stack.done(deleted);
    }
    const { vm: id } = await restored({ vmName: "orphan", start: true, keepIdentity: true });
    const orphan = await stack.domain.getVm(id as ResourceId);
    await agentAnswers(stack, orphan);
    assert.equal(orphan.machine.nics[0]?.mac, MAC);
  });
});

function restoreCommand(
  point: RestorePoint,
  more: {
    readonly vmName?: string;
    readonly start?: boolean;
    readonly keepIdentity?: boolean;
    readonly onlyDisks?: readonly ResourceId[];
  },
) {
  return {
    pointId: point.id,
    targetGroup: GROUP,
    vmName: null,
    diskNames: {},
    onlyDisks: [],
    start: false,
    keepIdentity: false,
    ...more,
  };
}

const vmId = (name: string) => `${GROUP}/providers/Microsoft.Compute/virtualMachines/${name}` as ResourceId;
const diskId = (name: string) => `${GROUP}/providers/Microsoft.Compute/disks/${name}` as ResourceId;
