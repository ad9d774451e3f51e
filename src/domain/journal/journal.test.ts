import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  ended,
  GROUP,
  id,
  openSite,
  point,
  restoring,
  startService,
  takePoint,
  until,
} from "../../../test/faults/domainSite.ts";
import { Gate, worldRepository } from "../../../test/faults/domainWorld.ts";
import { idKey } from "../../base/index.ts";
import { openCatalog } from "../../catalog/index.ts";
import { type Catalog, rebuildCatalog } from "../index.ts";

const named = (name: string) => id.point("shop-points", name);

describe("another service wrote to the repository", () => {
  test("the point in hand does not succeed, all writing stops and says why; restoring and power go on", async () => {
    const { world, domain, catalog, close } = await openSite();
    await takePoint(domain, "p1");
    world.append("checkpoint", { by: "a stranger" });
    const { operation } = await domain.createPoint(point("shop-points", "p2"));
    await until("writing stops", () => domain.health().readOnly !== null);
    assert.equal(domain.health().readOnly?.code, "RepositoryFenced");
    assert.equal((await domain.getPoint(named("p2"))).state, "Committing");
    assert.equal((await domain.getOperation(operation?.id as never)).status, "InProgress");
    await assert.rejects(domain.createPoint(point("shop-points", "p3")), { code: "RepositoryFenced" });
    await assert.rejects(domain.deletePoint(named("p1")), { code: "RepositoryFenced" });
    await assert.rejects(domain.deleteCollection(id.collection("shop-points")), { code: "RepositoryFenced" });
    await assert.rejects(domain.updateCollectionTags(id.collection("shop-points"), {}), { code: "RepositoryFenced" });
    await ended(domain, await domain.restore(restoring("shop-points", "p1")));
    await ended(domain, await domain.deallocateVm(id.vm("shop")));
    await domain.close();

    const next = startService(world, catalog, { seed: "next" });
    await next.recover();
    assert.equal(next.health().readOnly?.code, "RepositoryFenced");
    assert.equal((await next.getPoint(named("p1"))).state, "Succeeded");
    await next.close();
    await close();
  });
});

describe("a repository that is away", () => {
  test("at the commit makes the point wait, not fail; it succeeds when the repository is back", async () => {
    const { world, domain, close } = await openSite();
    world.repositoryAway = true;
    const { operation } = await domain.createPoint(point("shop-points", "p1"));
    await until("it commits", async () => (await domain.getPoint(named("p1"))).state === "Committing");
    await assert.rejects(domain.deletePoint(named("p1")), { code: "Conflict" });
    await assert.rejects(domain.updateCollectionTags(id.collection("shop-points"), { a: "b" }), {
      code: "RepositoryUnavailable",
    });
    world.repositoryAway = false;
    await ended(domain, operation);
    await until("released", () => world.captures.size === 0);
    assert.deepEqual(
      world.journal.map((entry) => entry.kind),
      ["format", "collection-put", "commit"],
    );
    await close();
  });

  test("at start leaves everything readable, and the stored entry is published when it is back", async () => {
    const { world, domain, catalog, close } = await openSite();
    world.repositoryAway = true;
    await domain.createPoint(point("shop-points", "p1"));
    await until("it commits", async () => (await domain.getPoint(named("p1"))).state === "Committing");
    await domain.close();
    const next = startService(world, catalog, { seed: "next" });
    await next.recover();
    assert.equal((await next.getVm(id.vm("shop"))).name, "shop");
    world.repositoryAway = false;
    await until("it succeeds", async () => (await next.getPoint(named("p1"))).state === "Succeeded");
    await until("released", () => world.captures.size === 0);
    await next.close();
    await close();
  });
});

describe("catalog and repository at start", () => {
  test("an older backup of the catalog gets what the journal has more", async () => {
    const { world, domain, close } = await openSite();
    const old = await openCatalog(":memory:");
    await rebuildCatalog({ catalog: old, repository: worldRepository(world, new Gate()) });
    await takePoint(domain, "p1");
    await takePoint(domain, "p2");
    await ended(domain, await domain.deletePoint(named("p1")));
    await domain.close();
    const next = startService(world, old, { seed: "next" });
    await next.recover();
    assert.equal(next.health().readOnly, null);
    assert.equal((await next.getPoint(named("p2"))).state, "Succeeded");
    await assert.rejects(next.getPoint(named("p1")), { code: "ResourceNotFound" });
    await next.updateCollectionTags(id.collection("shop-points"), { after: "replay" });
    await next.close();
    await old.close();
    await close();
  });

  test("a repository put back from an older backup stops all writing", async () => {
    const { world, domain, catalog, close } = await openSite();
    await takePoint(domain, "p1");
    await takePoint(domain, "p2");
    await domain.close();
    world.journal.pop();
    const next = startService(world, catalog, { seed: "next" });
    await next.recover();
    assert.match(next.health().readOnly?.message ?? "", /shorter/);
    await assert.rejects(next.createPoint(point("shop-points", "p3")), { code: "RepositoryFenced" });
    assert.equal(world.journal.length, 3);
    await next.close();
    await close();
  });

  test("an empty catalog over a repository with points is told to rebuild, and writes nothing", async () => {
    const { world, domain, close } = await openSite();
    await domain.close();
    const empty = await openCatalog(":memory:");
    const next = startService(world, empty, { seed: "next" });
    await next.recover();
    assert.match(next.health().readOnly?.message ?? "", /catalog rebuild/);
    await next.close();
    await empty.close();
    await close();
  });

  test("entries of the repository's own (keys, checkpoints) written meanwhile are followed", async () => {
    const { world, domain, catalog, close } = await openSite();
    await domain.close();
    world.append("domain-key", {});
    const next = startService(world, catalog, { seed: "next" });
    await next.recover();
    assert.equal((await takePoint(next, "p1")).state, "Succeeded");
    await next.close();
    await close();
  });
});

describe("rebuilding the catalog", () => {
  const read = (from: Catalog) =>
    from.read(async (tx) => ({
      groups: await tx.groups(GROUP.split("/")[2] ?? "", { after: null, limit: 10 }),
      collection: await tx.resource("collection", idKey(id.collection("shop-points"))),
      points: await tx.points(idKey(id.collection("shop-points")), { after: null, limit: 10 }),
    }));

  test("finds groups, collections with tags, and points with their records; and says what it cannot", async () => {
    const { world, domain, catalog, close } = await openSite();
    for (const name of ["p1", "p2", "p3"]) await takePoint(domain, name);
    await domain.putCollection({
      id: id.collection("shop-points"),
      location: "local",
      tags: { keep: "90d" },
      sourceId: id.vm("shop"),
    });
    await domain.putGroup({ id: GROUP, location: "local", tags: { owner: "shop" } });
    const deleted = await domain.getPoint(named("p3"));
    await ended(domain, await domain.deletePoint(named("p3")));
    const rebuilt = await openCatalog(":memory:");
    const report = await rebuildCatalog({ catalog: rebuilt, repository: worldRepository(world, new Gate()) });
    assert.deepEqual(await read(rebuilt), await read(catalog));
    assert.equal(report.points, 2);
    assert.equal(report.entries, world.journal.length);
    assert.deepEqual(report.notResurrected, [deleted.id], "its manifest is still there, and it stays deleted");
    assert.ok(report.notRebuilt.includes("operations"));
    const next = startService(world, rebuilt, { seed: "next" });
    await next.recover();
    assert.equal(next.health().readOnly, null);
    await ended(next, await next.restore(restoring("shop-points", "p2")));
    await next.close();
    await rebuilt.close();
    await close();
  });

  test("lists points whose manifests are lost, and goes on after an interruption", async () => {
    const { world, domain, close } = await openSite();
    const p1 = await takePoint(domain, "p1");
    world.manifests.delete(p1.manifest ?? "");
    const rebuilt = await openCatalog(":memory:");
    const repository = worldRepository(world, new Gate());
    const broken = { ...repository, readManifest: () => Promise.reject(new Error("the power went")) };
    await assert.rejects(rebuildCatalog({ catalog: rebuilt, repository: broken }), /the power went/);
    const report = await rebuildCatalog({ catalog: rebuilt, repository });
    assert.deepEqual(
      report.unreadable.map((entry) => entry.pointId),
      [p1.id],
    );
    await assert.rejects(rebuildCatalog({ catalog: rebuilt, repository }), { code: "Conflict" });
    await rebuilt.close();
    await close();
  });
});
