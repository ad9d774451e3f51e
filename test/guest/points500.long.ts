/** As many points of one VM as there may be: each holds its own bytes to the end, and the next one is refused. */
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { buildGuest } from "../../setup/guest/index.ts";
import { MiB, type ResourceId, systemClock } from "../../src/base/index.ts";
import type { Disk, DiskRestorePoint, RestorePoint, Vm } from "../../src/domain/index.ts";
import { collectGarbage } from "../../src/programs/upkeep.ts";
import type { TreeRef } from "../../src/repository/index.ts";
import { dataDigestOfFile, makeDataDigest } from "../faults/lib/digest.ts";
import { seededNumbers } from "../faults/lib/seeded.ts";
import { agentAnswers, bootVm, dataDisks, openStack, putCollection, type Stack } from "./lib/stack.ts";
import { readExport, readImage } from "./lib/truth.ts";

const POINTS = 500;
/** Every so many points take the OS disk with them, and a full read of the frozen source by qemu-img. */
const WHOLE_EVERY = 10;
const SEED = Number(process.env["SEED"] ?? systemClock.now().getTime() % 1_000_000);

describe(`${POINTS} points of one VM (SEED=${SEED})`, () => {
  const random = seededNumbers(SEED);
  let stack: Stack;
  let vm: Vm;
  let collection: ResourceId;
  let wanted: readonly string[] = [];
  /** By point and disk name, right after the point was durable. */
  const digests = new Map<string, string>();
  /** Of the frozen source, where it was read. */
  const truth = new Map<string, string>();
  let truths = 0;

  before(async () => {
    const guest = await buildGuest(() => {});
    stack = await openStack({ probe: (step, moment) => readTruth(step, moment) });
    const { c } = await dataDisks(stack, 48 * MiB);
    vm = await bootVm(stack, "vm", [
      { name: "os", from: guest.osDisk, format: "qcow2" },
      { name: "c", from: c, format: "raw" },
    ]);
    await agentAnswers(stack, vm);
    collection = await putCollection(stack, vm);
  });
  after(() => stack?.close());

  async function readTruth(step: string, moment: string): Promise<void> {
    if (step !== "copy-0" || moment !== "before" || wanted.length === 0) return;
    const [state] = await stack.guard.call("capture.list", {});
    const { exports } = await stack.guard.call("vm.inspect", { vm: vm.vmUid });
    for (const [index, disk] of wanted.entries()) {
      const target = join(stack.dir, "truth.raw");
      await readExport(state?.nbdSocket ?? "", exports.find((name) => name.endsWith(`-${index}`)) ?? "", target);
      truth.set(disk, await dataDigestOfFile(target));
      await rm(target);
    }
  }

  const pointId = (index: number) => `${collection}/restorePoints/p${index}` as ResourceId;
  const nameOf = (point: RestorePoint, disk: DiskRestorePoint) => `${point.name} ${disk.diskName}`;

  async function stored(disk: DiskRestorePoint): Promise<string> {
    const digest = makeDataDigest();
    const reader = await stack.repository.openDisk(disk.tree as TreeRef);
    try {
      for await (const { offset, data } of reader.stream()) digest.add(offset, data);
    } finally {
      await reader.close();
    }
    return digest.end(disk.sizeBytes);
  }

  function create(index: number, whole: boolean) {
    return stack.domain.createPoint({
      id: pointId(index),
      collectionId: collection,
      consistencyMode: "CrashConsistent",
      excludeDisks: whole ? [] : [vm.osDisk?.diskId as ResourceId],
      bodyHash: `${whole}`,
    });
  }

  test("are taken one after another, each with its truth", async () => {
    for (let index = 0; index < POINTS; index++) {
      const whole = index % WHOLE_EVERY === 0;
      wanted = whole ? ["os", "c"] : [];
      truth.clear();
      const { operation } = await create(index, whole);
      await stack.done(operation);
      const point = await stack.domain.getPoint(pointId(index));
      assert.equal(point.disks.length, whole ? 2 : 1);
      for (const [at, disk] of point.disks.entries()) {
        const digest = await stored(disk);
        digests.set(nameOf(point, disk), digest);
        if (!whole) continue;
        assert.equal(digest, truth.get(at === 0 ? "os" : "c"), `disk ${disk.diskName} of ${point.name}`);
        truths++;
      }
      if (index > 0)
        assert.ok(
          point.record?.disks.some(({ kind }) => kind === "incremental"),
          point.name,
        );
    }
    assert.equal(truths, (2 * POINTS) / WHOLE_EVERY);
    assert.ok(new Set(digests.values()).size > POINTS * 0.9, "the guest has written between the points");
  });

  test("the next one is refused with the limit's name", async () => {
    await assert.rejects(create(POINTS, false), (error: Error & { code?: string }) => {
      assert.equal(error.code, "OperationNotAllowed");
      assert.match(error.message, new RegExp(`${POINTS} restore points`));
      return true;
    });
  });

  async function restored(disk: DiskRestorePoint, name: string): Promise<string> {
    const id = `${vm.id.slice(0, vm.id.lastIndexOf("/virtualMachines/"))}/disks/${name}` as ResourceId;
    const put = await stack.domain.putDisk({
      id,
      location: stack.config.region,
      tags: {},
      sku: null,
      format: "qcow2",
      osType: null,
      hyperVGeneration: null,
      sizeBytes: null,
      creation: { createOption: "Restore", sourceResourceId: disk.id },
    });
    await stack.done(put.operation);
    const made: Disk = await stack.domain.getDisk(id);
    const raw = join(stack.dir, "restored.raw");
    await readImage(made.path ?? "", made.format, raw);
    const digest = await dataDigestOfFile(raw);
    await rm(raw);
    await stack.done((await stack.domain.deleteDisk(id)) as never);
    return digest;
  }

  test("first, last and random ones are restored byte for byte", async () => {
    const indexes = [0, POINTS - 1, ...Array.from({ length: 6 }, () => Math.floor(random() * POINTS))];
    for (const [count, index] of indexes.entries()) {
      const point = await stack.domain.getPoint(pointId(index));
      for (const [at, disk] of point.disks.entries())
        assert.equal(await restored(disk, `back-${count}-${at}`), digests.get(nameOf(point, disk)), point.name);
    }
  });

  test("one is deleted, its space is collected, and all others read as before", async () => {
    const gone = 1 + Math.floor(random() * (POINTS - 2));
    await stack.done((await stack.domain.deletePoint(pointId(gone))) as never);
    for (let run = 0; run < 2; run++) await collectGarbage(stack.catalog, stack.repository);
    for (let index = 0; index < POINTS; index++) {
      if (index === gone) continue;
      const point = await stack.domain.getPoint(pointId(index));
      for (const disk of point.disks) assert.equal(await stored(disk), digests.get(nameOf(point, disk)), point.name);
    }
    const { operation } = await create(POINTS, false);
    await stack.done(operation);
  });
});
