import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  ended,
  id,
  openSite,
  point,
  restoring,
  type Site,
  takePoint,
  turns,
  until,
  vm,
} from "../../../test/faults/domainSite.ts";
import { type ErrorCode, type ResourceId, StillpointError } from "../../base/index.ts";

const named = (name: string) => id.point("shop-points", name);

describe("creating a restore point", () => {
  let site: Site;
  before(async () => {
    site = await openSite({ pointsPerVm: 3 });
  });
  after(() => site.close());

  test("ends as Succeeded with disks, record and anchors, its entry in the journal, and nothing left in QEMU", async () => {
    const { domain, world, catalog } = site;
    const done = await takePoint(domain, "first");
    assert.equal(done.state, "Succeeded");
    assert.deepEqual(
      done.disks.map((disk) => [disk.diskName, disk.lun]),
      [
        ["os", null],
        ["data", 0],
      ],
    );
    assert.equal(done.record?.reachedMode, "CrashConsistent");
    assert.equal(done.source?.name, "shop");
    assert.equal(done.takenAt, "2026-01-01T00:00:01.000Z");
    const entry = world.journal.at(-1);
    assert.ok(entry);
    assert.equal(entry.kind, "commit");
    assert.equal((entry.payload as { point: string }).point, done.uid);
    await until("the capture is released", () => world.captures.size === 0);
    const anchors = await catalog.read((tx) => tx.anchors());
    assert.deepEqual(
      anchors.map((anchor) => anchor.pointUid),
      [done.uid, done.uid],
    );
  });

  test("the same request again is the same point; another body is a conflict", async () => {
    const again = await site.domain.createPoint(point("shop-points", "first"));
    assert.equal(again.created, false);
    assert.equal(again.resource.state, "Succeeded");
    assert.equal(again.operation?.status, "Succeeded");
    await site.refuses({ code: "Conflict" }, () =>
      site.domain.createPoint(point("shop-points", "first", { bodyHash: "other" })),
    );
  });

  const unfit: readonly [string, () => Promise<unknown>, ErrorCode, string?][] = [
    ["a slash in the name", () => site.domain.createPoint(point("shop-points", "a/b")), "InvalidResourceName"],
    ["a dot at the end", () => site.domain.createPoint(point("shop-points", "p.")), "InvalidResourceName"],
    ["a dot at the start", () => site.domain.createPoint(point("shop-points", ".p")), "InvalidResourceName"],
    ["81 characters", () => site.domain.createPoint(point("shop-points", "p".repeat(81))), "InvalidResourceName"],
    ["a blank", () => site.domain.createPoint(point("shop-points", "p 1")), "InvalidResourceName"],
    ["no such collection", () => site.domain.createPoint(point("nowhere", "p")), "ResourceNotFound"],
    [
      "a disk that is not the VM's",
      () => site.domain.createPoint(point("shop-points", "p", { excludeDisks: [id.disk("os"), id.disk("strange")] })),
      "InvalidParameter",
      "properties.excludeDisks[1]",
    ],
    [
      "all disks excluded",
      () =>
        site.domain.createPoint(
          point("shop-points", "p", { excludeDisks: [id.disk("OS"), id.disk("data").toUpperCase() as ResourceId] }),
        ),
      "InvalidParameter",
      "properties.excludeDisks",
    ],
  ];
  for (const [what, command, code, target] of unfit)
    test(`is refused with ${what}`, async () => {
      await site.refuses({ code, ...(target === undefined ? {} : { target }) }, command);
    });

  test("leaves excluded disks out", async () => {
    const done = await takePoint(site.domain, "second", { excludeDisks: [id.disk("DATA")] });
    assert.deepEqual(
      done.disks.map((disk) => disk.diskName),
      ["os"],
    );
  });

  test("of an application-consistent point fails with the remedy, and counts no further", async () => {
    await assert.rejects(
      takePoint(site.domain, "app", { consistencyMode: "ApplicationConsistent" }),
      /VMRestorePointClientError/,
    );
    const failed = await site.domain.getPoint(named("app"));
    assert.equal(failed.state, "Failed");
    assert.equal(failed.error?.code, "VMRestorePointClientError");
    assert.match(failed.error?.message ?? "", /--consistency-mode CrashConsistent/);
    assert.deepEqual(await site.catalog.read((tx) => tx.intents()), []);
  });

  test("after a failure is a new attempt in the same resource, with any body", async () => {
    const { world, domain } = site;
    world.failing.set("third", new StillpointError("VMAgentStatusCommunicationError", "The agent is silent."));
    await assert.rejects(takePoint(domain, "third", { consistencyMode: null }), /VMAgentStatusCommunicationError/);
    world.failing.delete("third");
    const failed = await domain.getPoint(named("third"));
    const again = await takePoint(domain, "third", { bodyHash: "with another mode" });
    assert.equal(again.state, "Succeeded");
    assert.notEqual(again.uid, failed.uid);
    assert.notEqual(again.operationId, failed.operationId);
    assert.equal(again.error, null);
  });

  test("is refused above the limit, which failed points do not count towards", async () => {
    await site.refuses({ code: "OperationNotAllowed", message: /3 restore points/ }, () =>
      site.domain.createPoint(point("shop-points", "fourth")),
    );
    await ended(site.domain, await site.domain.deletePoint(named("second")));
    await takePoint(site.domain, "fourth");
  });
});

describe("while a point is being created", () => {
  let site: Site;
  let hold: PromiseWithResolvers<void>;
  before(async () => {
    site = await openSite();
    await takePoint(site.domain, "earlier");
    hold = Promise.withResolvers<void>();
    site.world.holdCaptures = hold.promise;
    await site.domain.createPoint(point("shop-points", "slow"));
    await until("90 %", async () => (await site.domain.getPoint(named("slow"))).percent === 90);
  });
  after(async () => {
    hold.resolve();
    await site.close();
  });

  test("another one of the VM is refused, also from another collection", async () => {
    const other = { id: id.collection("other"), location: "local", tags: {}, sourceId: id.vm("shop") };
    await site.domain.putCollection(other);
    for (const collection of ["shop-points", "other"])
      await site.refuses({ code: "Conflict", message: /'slow'/ }, () =>
        site.domain.createPoint(point(collection, "second")),
      );
  });

  test("the same request is the same point, with its operation and percentage", async () => {
    const again = await site.domain.createPoint(point("shop-points", "slow"));
    assert.equal(again.created, false);
    assert.equal(again.operation?.status, "InProgress");
    assert.equal((await site.domain.getOperation(again.resource.operationId)).percent, 90);
  });

  test("restoring from it tells the percentage", async () => {
    await site.refuses({ code: "Conflict", message: /90 % copied/ }, () =>
      site.domain.restore(restoring("shop-points", "slow")),
    );
  });

  test("its VM can be switched off, and can be neither deleted nor changed; its disks cannot grow", async () => {
    await ended(site.domain, await site.domain.powerOffVm(id.vm("shop"), true));
    await ended(site.domain, await site.domain.startVm(id.vm("shop")));
    await site.refuses({ code: "Conflict" }, () => site.domain.deleteVm(id.vm("shop")));
    const grown = { tags: null, sizeBytes: (2 * 1024 ** 3) as never };
    await site.refuses({ code: "Conflict" }, () => site.domain.updateDisk(id.disk("data"), grown));
    await ended(site.domain, await site.domain.deallocateVm(id.vm("shop")));
    await site.refuses({ code: "Conflict" }, () => site.domain.putVm(vm("shop", "os", [])));
    await site.refuses({ code: "Conflict", message: /90 % copied/ }, () => site.domain.startVm(id.vm("shop")));
  });

  test("deleting it cancels its creation and leaves nothing; the earlier point is untouched", async () => {
    const { resource } = await site.domain.createPoint(point("shop-points", "slow"));
    const deletion = await site.domain.abandonPoint(named("slow"));
    assert.ok(deletion !== null && deletion !== "done");
    const same = await site.domain.deletePoint(named("slow"));
    assert.equal((same as { id: string }).id, deletion.id);
    hold.resolve();
    await ended(site.domain, deletion);
    assert.equal((await site.domain.getOperation(resource.operationId)).status, "Canceled");
    await assert.rejects(site.domain.getPoint(named("slow")), { code: "ResourceNotFound" });
    assert.equal(site.world.captures.size, 0);
    assert.deepEqual(await site.catalog.read((tx) => tx.intents()), []);
    assert.equal((await site.domain.getPoint(named("earlier"))).state, "Succeeded");
    assert.equal(await site.domain.deletePoint(named("slow")), null);
  });

  test("giving up never costs a point that has succeeded", async () => {
    await site.refuses({ code: "OperationNotAllowed" }, () => site.domain.abandonPoint(named("earlier")));
  });
});

describe("deleting", () => {
  let site: Site;
  before(async () => {
    site = await openSite();
    await takePoint(site.domain, "p1");
    await takePoint(site.domain, "p2");
  });
  after(() => site.close());

  test("a point being restored is pinned, and so is its whole collection", async () => {
    const hold = Promise.withResolvers<void>();
    site.world.holdRestores = hold.promise;
    const operation = await site.domain.restore(restoring("shop-points", "p1", { vmName: null }));
    await site.refuses({ code: "Conflict", message: /being restored/ }, () => site.domain.deletePoint(named("p1")));
    await site.refuses({ code: "Conflict", message: /'p1'/ }, () =>
      site.domain.deleteCollection(id.collection("shop-points")),
    );
    assert.equal((await site.domain.getPoint(named("p2"))).state, "Succeeded");
    hold.resolve();
    await ended(site.domain, operation);
    await ended(site.domain, await site.domain.deletePoint(named("p1")));
    assert.equal(site.world.journal.at(-1)?.kind, "delete");
  });

  test("a VM keeps its points and collections", async () => {
    await ended(site.domain, await site.domain.deleteVm(id.vm("shop")));
    assert.equal((await site.domain.getPoint(named("p2"))).state, "Succeeded");
    await site.refuses({ code: "ResourceNotFound", message: /does not exist any more/ }, () =>
      site.domain.createPoint(point("shop-points", "p3")),
    );
    assert.equal((await site.domain.getDisk(id.disk("os"))).managedBy, null);
  });

  test("a collection takes all its points along, in one journal entry", async () => {
    await ended(site.domain, await site.domain.deleteCollection(id.collection("shop-points")));
    assert.equal(site.world.journal.at(-1)?.kind, "collection-delete");
    await assert.rejects(site.domain.getPoint(named("p2")), { code: "ResourceNotFound" });
    assert.equal(await site.domain.deleteCollection(id.collection("shop-points")), null);
  });
});

describe("a collection", () => {
  let site: Site;
  before(async () => {
    site = await openSite();
  });
  after(() => site.close());
  const put = (more: object) => ({
    id: id.collection("shop-points"),
    location: "local",
    tags: {},
    sourceId: id.vm("shop"),
    ...more,
  });

  test("takes other tags, and journals them once", async () => {
    const entries = site.world.journal.length;
    const changed = await site.domain.putCollection(put({ tags: { a: "1" } }));
    assert.deepEqual([changed.created, changed.resource.tags], [false, { a: "1" }]);
    await site.domain.putCollection(put({ tags: { a: "1" } }));
    assert.equal(site.world.journal.length, entries + 1);
  });

  test("keeps its source, and its source is a VM that exists here", async () => {
    await site.refuses({ code: "PropertyChangeNotAllowed", target: "properties.source.id" }, () =>
      site.domain.putCollection(put({ sourceId: id.vm("other") })),
    );
    const fresh = { id: id.collection("fresh") };
    await site.refuses({ code: "InvalidParameter", target: "properties.source.id" }, () =>
      site.domain.putCollection(put({ ...fresh, sourceId: id.disk("os") })),
    );
    await site.refuses({ code: "ResourceNotFound", target: "properties.source.id" }, () =>
      site.domain.putCollection(put({ ...fresh, sourceId: id.vm("nobody") })),
    );
    await site.refuses({ code: "InvalidParameter", target: "location" }, () =>
      site.domain.putCollection(put({ ...fresh, location: "elsewhere" })),
    );
    const nowhere = id.collection("x").replace("Shop", "Nowhere") as ResourceId;
    await site.refuses({ code: "ResourceGroupNotFound" }, () => site.domain.putCollection(put({ id: nowhere })));
  });
});

describe("a guard that is away", () => {
  test("fails the point; what it left is undone when the guard is back, before the next point", async () => {
    const site = await openSite();
    const { world, domain } = site;
    const hold = Promise.withResolvers<void>();
    world.holdCaptures = hold.promise;
    await domain.createPoint(point("shop-points", "p1"));
    await until("copying", async () => (await domain.getPoint(named("p1"))).percent === 90);
    world.guardAway = true;
    const deletion = await domain.deletePoint(named("p1"));
    hold.resolve();
    await assert.rejects(ended(domain, deletion as never), /HypervisorUnavailable/);
    assert.equal((await domain.getPoint(named("p1"))).state, "Failed");
    assert.equal(world.captures.size, 1, "the guard could not be told");
    world.guardAway = false;
    await until("the leftover is undone", () => world.captures.size === 0);
    world.holdCaptures = Promise.resolve();
    assert.equal((await takePoint(domain, "p2")).state, "Succeeded");
    await turns(50);
    assert.deepEqual(await site.catalog.read((tx) => tx.intents()), []);
    await site.close();
  });
});
