import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { ended, id, openSite, restoring, type Site, takePoint, turns } from "../../../test/faults/domainSite.ts";
import { type ErrorCode, idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { Operation, RestoreCommand, RestoreOutput } from "../index.ts";

function outputOf(operation: Operation | null): RestoreOutput {
  assert.ok(operation);
  return operation.output as RestoreOutput;
}

describe("restoring", () => {
  let site: Site;
  before(async () => {
    site = await openSite();
    await takePoint(site.domain, "whole");
    await takePoint(site.domain, "os-only", { excludeDisks: [id.disk("data")] });
    await takePoint(site.domain, "data-only", { excludeDisks: [id.disk("os")] });
  });
  after(() => site.close());

  test("a whole VM makes new disks and an equal machine with an identity of its own, and starts it", async () => {
    const { domain, world } = site;
    const names = { [idKey(id.disk("data"))]: "data-back" };
    const done = await ended(domain, await domain.restore(restoring("shop-points", "whole", { diskNames: names })));
    const output = outputOf(done);
    assert.equal(output.vm, id.vm("shop2"));
    assert.deepEqual(output.notRestored, ["the state of the TPM tpm0"]);
    const [made, source] = [await domain.getVm(id.vm("shop2")), await domain.getVm(id.vm("shop"))];
    assert.equal((await domain.vmPower(made)).power, "running");
    assert.deepEqual([made.vmSize, made.vcpus, made.control], [source.vmSize, source.vcpus, "own"]);
    assert.equal(made.dataDisks[0]?.name, "data-back");
    assert.match(made.osDisk?.name ?? "", /^shop2-[0-9a-f]{8}$/);
    for (const disk of output.disks) {
      const now = await domain.getDisk(disk);
      assert.deepEqual([now.provisioningState, now.managedBy], ["Succeeded", made.id]);
      const from = await domain.getDisk(now.name === "data-back" ? id.disk("data") : id.disk("os"));
      const content = (path: string | null) => world.files.get(path ?? "")?.content;
      assert.equal(content(now.path), content(from.path));
    }
    const serials = (vm: typeof made) => Object.values(vm.machine.disks).map((disk) => disk.serial);
    assert.ok(serials(made).every((serial) => !serials(source).includes(serial)));
    assert.notEqual(made.machine.nics[0]?.mac, source.machine.nics[0]?.mac);
    assert.deepEqual(await site.catalog.read((tx) => tx.pins()), []);
  });

  test("with the source's identity is refused while the source runs, and works when it is off", async () => {
    const { domain } = site;
    const command = restoring("shop-points", "whole", { vmName: "shop3", keepIdentity: true, start: false });
    await site.refuses({ code: "Conflict", message: /'shop' is running/ }, () => domain.restore(command));
    site.world.guardAway = true;
    await site.refuses({ code: "Conflict", message: /unreachable/ }, () => domain.restore(command));
    site.world.guardAway = false;
    await ended(domain, await domain.deallocateVm(id.vm("shop")));
    await ended(domain, await domain.restore(command));
    const [made, source] = [await domain.getVm(id.vm("shop3")), await domain.getVm(id.vm("shop"))];
    assert.deepEqual(made.machine.nics, source.machine.nics);
    const serials = (vm: typeof made) => Object.values(vm.machine.disks).map((disk) => disk.serial);
    assert.deepEqual(serials(made), serials(source));
    assert.equal((await domain.vmPower(made)).power, "deallocated");
  });

  test("a point with excluded disks tells what is missing", async () => {
    const command = restoring("shop-points", "os-only", { vmName: "small", start: false });
    const done = await ended(site.domain, await site.domain.restore(command));
    const { notRestored, disks } = outputOf(done);
    assert.equal(disks.length, 1);
    assert.ok(notRestored.some((line) => line.includes(id.disk("data")) && line.includes("excluded")));
  });

  test("some disks alone", async () => {
    const point = await site.domain.getPoint(id.point("shop-points", "whole"));
    const only = point.disks.filter((disk) => disk.diskName === "data").map((disk) => disk.id);
    const command = restoring("shop-points", "whole", { vmName: null, onlyDisks: only });
    const { disks, vm } = outputOf(await ended(site.domain, await site.domain.restore(command)));
    assert.equal(vm, null);
    assert.equal(disks.length, 1);
    assert.equal((await site.domain.getDisk(disks[0] as ResourceId)).managedBy, null);
  });

  const unfit: readonly [string, RestoreCommand, ErrorCode, string?][] = [
    ["an unknown point", restoring("shop-points", "none"), "ResourceNotFound"],
    [
      "a group that is not there",
      restoring("shop-points", "whole", { targetGroup: "/subscriptions/s/resourceGroups/no" as ResourceId }),
      "ResourceGroupNotFound",
    ],
    ["the name of a VM that is there", restoring("shop-points", "whole", { vmName: "SHOP" }), "Conflict"],
    ["a bad VM name", restoring("shop-points", "whole", { vmName: "a/b" }), "InvalidResourceName", "vmName"],
    ["no OS disk in the point", restoring("shop-points", "data-only", { vmName: "x" }), "InvalidParameter", "vmName"],
    [
      "a disk name that is taken",
      restoring("shop-points", "whole", { vmName: "x", diskNames: { [idKey(id.disk("os"))]: "data" } }),
      "Conflict",
    ],
    [
      "one name for two disks",
      restoring("shop-points", "whole", {
        vmName: "x",
        diskNames: { [idKey(id.disk("os"))]: "n", [idKey(id.disk("data"))]: "N" },
      }),
      "InvalidParameter",
      "diskNames",
    ],
    [
      "a disk the point does not hold",
      restoring("shop-points", "whole", { vmName: "x", diskNames: { "/strange": "n" } }),
      "InvalidParameter",
      "diskNames",
    ],
    [
      "a strange disk restore point",
      restoring("shop-points", "whole", { vmName: null, onlyDisks: [id.disk("os")] }),
      "InvalidParameter",
      "onlyDisks[0]",
    ],
  ];
  for (const [what, command, code, target] of unfit)
    test(`is refused with ${what}`, () =>
      site.refuses({ code, ...(target === undefined ? {} : { target }) }, () => site.domain.restore(command)));

  test("a VM with a part of its disks is refused", async () => {
    const point = await site.domain.getPoint(id.point("shop-points", "whole"));
    const command = restoring("shop-points", "whole", { vmName: "x", onlyDisks: [point.disks[0]?.id as ResourceId] });
    await site.refuses({ code: "InvalidParameter", target: "onlyDisks" }, () => site.domain.restore(command));
  });

  test("that fails in the middle leaves no disk, no VM and no file", async () => {
    const { world, domain } = site;
    const files = new Set(world.files.keys());
    const hold = Promise.withResolvers<void>();
    hold.promise.catch(() => {});
    world.holdRestores = hold.promise;
    const operation = await domain.restore(restoring("shop-points", "whole", { vmName: "broken" }));
    await turns(30);
    assert.equal((await domain.getVm(id.vm("broken"))).provisioningState, "Creating");
    hold.reject(new StillpointError("RepositoryDamaged", "The pack 7 is damaged."));
    await assert.rejects(ended(domain, operation), /pack 7 is damaged/);
    world.holdRestores = Promise.resolve();
    await assert.rejects(domain.getVm(id.vm("broken")), { code: "ResourceNotFound" });
    assert.deepEqual(new Set(world.files.keys()), files);
    assert.deepEqual(await site.catalog.read((tx) => tx.pins()), []);
  });

  test("whose start fails keeps the disks and the machine, which are whole", async () => {
    const { world, domain } = site;
    world.startFails = new StillpointError("HypervisorUnavailable", "There is no memory for it.");
    const operation = await domain.restore(restoring("shop-points", "whole", { vmName: "heavy" }));
    await assert.rejects(ended(domain, operation), /no memory/);
    const made = await domain.getVm(id.vm("heavy"));
    assert.equal(made.provisioningState, "Failed");
    world.startFails = null;
    await ended(domain, await domain.startVm(made.id));
    assert.equal((await domain.getVm(made.id)).provisioningState, "Succeeded");
  });
});
