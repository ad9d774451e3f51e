/**
 * The capture suite: what a QEMU version must show to earn its row in the table of tested versions. Every captured
 * disk is compared byte for byte with a full read of the same frozen source by another client.
 */
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { buildGuest } from "../../../setup/guest/index.ts";
import { MiB, type ResourceId } from "../../../src/base/index.ts";
import type { RestorePoint, Vm } from "../../../src/domain/index.ts";
import { agentAnswers, bootVm, dataDisks, openStack, putCollection, type Stack, takePoint } from "./stack.ts";
import { digest, readExport, readImage, readPoint } from "./truth.ts";

export interface SuiteVersion {
  readonly label: string;
  readonly qemu?: readonly string[];
  /** How disks in iothreads must have been read on this version. */
  readonly iothreadMethod: "pull" | "push";
}

export function captureSuite(version: SuiteVersion): void {
  describe(`capture suite on ${version.label}`, () => {
    let stack: Stack;
    let vm: Vm;
    let collection: ResourceId;
    const truth = new Map<string, string>();

    before(async () => {
      const guest = await buildGuest(() => {});
      stack = await openStack({
        ...(version.qemu ? { qemu: version.qemu } : {}),
        probe: (step, moment) => takeTruth(step, moment),
      });
      const data = await dataDisks(stack, 64 * MiB);
      vm = await bootVm(stack, "vm", [
        { name: "os", from: guest.osDisk, format: "qcow2" },
        { name: "b", from: data.b, format: "qcow2", iothread: true },
        { name: "c", from: data.c, format: "raw" },
      ]);
      await agentAnswers(stack, vm);
      collection = await putCollection(stack, vm);
    });
    after(() => stack?.close());

    /** Right before the copy of each disk, while the guest writes on: the whole frozen source, by qemu-img. */
    async function takeTruth(step: string, moment: string): Promise<void> {
      const member = /^(copy|staging)-(\d)$/.exec(step);
      if (!member || moment !== "before") return;
      const [state] = (await stack.guard.call("capture.list", {})).filter((one) => one.phase === "taken");
      assert.ok(state, "a capture is taken");
      const target = join(stack.dir, `truth-${member[2]}.raw`);
      if (member[1] === "staging") await readImage(state.scratch[String(member[2])] ?? "", "qcow2", target);
      else {
        const facts = await stack.guard.call("vm.inspect", { vm: vm.vmUid });
        const name = facts.exports.find((one) => one.endsWith(`-${member[2]}`));
        if (!name || !state.nbdSocket) return; // pushed: read when its staging file is whole
        await readExport(state.nbdSocket, name, target);
      }
      truth.set(String(member[2]), await digest(target));
      await rm(target);
    }

    async function compare(point: RestorePoint): Promise<void> {
      assert.equal(point.state, "Succeeded");
      assert.equal(truth.size, 3, "the truth of all three disks was read");
      for (const [index, disk] of point.disks.entries()) {
        const file = join(stack.dir, "stored.raw");
        await readPoint(stack.repository, disk, file);
        assert.equal(await digest(file), truth.get(String(index)), `disk ${disk.diskName} of ${point.name}`);
        await rm(file);
      }
      truth.clear();
    }

    const kinds = (point: RestorePoint) => point.record?.disks.map((disk) => `${disk.method} ${disk.kind}`);

    test("a full point of a writing guest holds every byte of the frozen source", async () => {
      const point = await takePoint(stack, collection, "p1");
      await compare(point);
      assert.deepEqual(kinds(point), ["pull full", `${version.iothreadMethod} full`, "pull full"]);
      assert.equal(point.record?.reachedMode, "CrashConsistent");
    });

    test("increments read what changed and hold every byte", async () => {
      for (const name of ["p2", "p3", "p4"]) {
        const point = await takePoint(stack, collection, name);
        await compare(point);
        const middle = version.iothreadMethod === "pull" ? "pull incremental" : "push full-compared";
        assert.deepEqual(kinds(point), ["pull incremental", middle, "pull incremental"]);
        for (const disk of point.record?.disks ?? [])
          if (disk.kind === "incremental") assert.ok(disk.bytesRead < disk.sizeBytes / 2, "an increment reads little");
        assert.deepEqual(point.record?.alarms, []);
      }
    });

    test("a frozen point is file-system consistent, and says how long the guest stood still", async () => {
      const point = await takePoint(stack, collection, "frozen", null);
      await compare(point);
      assert.equal(point.record?.reachedMode, "FileSystemConsistent");
      assert.ok((point.record?.freeze?.frozenFilesystems ?? 0) >= 3);
      assert.ok((point.record?.stallMs ?? 0) > 0);
    });

    test("without its bitmap a disk is read in full and compared, in the same chain, and the record says why", async () => {
      const facts = await stack.guard.call("vm.inspect", { vm: vm.vmUid });
      const disk = facts.disks[0];
      assert.ok(disk);
      for (const bitmap of disk.bitmaps)
        await stack.guard.call("vm.execute", {
          vm: vm.vmUid,
          step: {
            name: "lose",
            execute: "block-dirty-bitmap-remove",
            arguments: { node: disk.node, name: bitmap.name },
          },
        });
      const before = await takeLineage(stack, collection, "frozen");
      const point = await takePoint(stack, collection, "fallback");
      await compare(point);
      assert.equal(point.record?.disks[0]?.kind, "full-compared");
      assert.match(point.record?.disks[0]?.fullReason ?? "", /bitmap is gone/);
      assert.equal(point.disks[0]?.lineage, before, "the chain goes on");
    });

    test("QEMU shows nothing of a capture but the bitmaps that record for the next", async () => {
      const facts = await stack.guard.call("vm.inspect", { vm: vm.vmUid });
      assert.deepEqual(facts.jobs, []);
      assert.deepEqual(facts.exports, []);
      assert.deepEqual(
        facts.nodes.filter((node) => node.startsWith("sp-")),
        [],
      );
      assert.ok(facts.disks.every((disk) => disk.bitmaps.length <= 1));
      assert.deepEqual(await stack.guard.call("capture.list", {}), []);
    });

    test("a point of the powered-off and of the deallocated guest says why it is crash consistent", async () => {
      await stack.done(await stack.domain.powerOffVm(vm.id, true));
      const off = await takePoint(stack, collection, "off", null);
      await compare(off);
      assert.match(off.record?.modeReason ?? "", /stopped|not running/);
      await stack.done(await stack.domain.deallocateVm(vm.id));
      const gone = await takePoint(stack, collection, "gone", null);
      assert.equal(gone.record?.reachedMode, "CrashConsistent");
      assert.match(gone.record?.modeReason ?? "", /deallocated/);
      for (const [index, disk] of gone.disks.entries()) {
        const source = (await stack.domain.getDisk(disk.diskId)).path ?? "";
        const file = join(stack.dir, "stored.raw");
        await readImage(source, disk.format, join(stack.dir, "source.raw"));
        await readPoint(stack.repository, disk, file);
        assert.equal(await digest(file), await digest(join(stack.dir, "source.raw")), `disk ${index}`);
      }
    });
  });
}

async function takeLineage(stack: Stack, collection: ResourceId, name: string): Promise<string | undefined> {
  const point = await stack.domain.getPoint(`${collection}/restorePoints/${name}` as ResourceId);
  return point.disks[0]?.lineage;
}
