/**
 * The service dies at every single step it takes towards the outside (a catalog transaction, a journal entry, a command
 * to hypervisor, images or restores), a new one starts on what is left, and everything must add up.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, idKey, StillpointError } from "../../src/base/index.ts";
import { openCatalog } from "../../src/catalog/index.ts";
import { type Catalog, type Domain, type RestorePoint, rebuildCatalog } from "../../src/domain/index.ts";
import { emptyDisk, ended, furnish, GROUP, id, restoring, startService, takePoint, turns } from "./domainSite.ts";
import { Crash, Gate, GIB, World, worldRepository } from "./domainWorld.ts";

/** What the user was told is durable before the service died. */
interface Told {
  readonly succeeded: Set<string>;
  readonly deleting: Set<string>;
}

/** A user's day: everything the domain can do, one after another. */
async function day(world: World, domain: Domain, told: Told): Promise<void> {
  await furnish(domain);
  const keep = async (name: string) => {
    if ((await takePoint(domain, name)).state === "Succeeded") told.succeeded.add(name);
  };
  await keep("p1");
  await keep("p2");
  world.failing.set("p3", new StillpointError("VMAgentStatusCommunicationError", "The agent is silent."));
  await takePoint(domain, "p3").catch(rethrowCrash);
  world.failing.delete("p3");
  await keep("p3");
  await abandonInMidCopy(world, domain);
  told.deleting.add("p1");
  await ended(domain, await domain.deletePoint(id.point("shop-points", "p1")));
  await ended(domain, await domain.restore(restoring("shop-points", "p2")));
  const grown = { tags: { grown: "yes" }, sizeBytes: bytes(2 * GIB) };
  await ended(domain, (await domain.updateDisk(id.disk("data"), grown)).operation);
  await domain.putGroup({ id: GROUP, location: "local", tags: { team: "other" } });
  await ended(domain, await domain.powerOffVm(id.vm("shop"), true));
  await ended(domain, await domain.deallocateVm(id.vm("shop")));
  await keep("p5");
  await ended(domain, await domain.startVm(id.vm("shop")));
  await domain.updateCollectionTags(id.collection("shop-points"), { keep: "yes" });
  await ended(domain, await domain.deleteVm(id.vm("shop2")));
  await adoptAndRelease(world, domain);
  const sourceResourceId = (await domain.getPoint(id.point("shop-points", "p2"))).disks[0]?.id;
  assert.ok(sourceResourceId);
  const restored = emptyDisk("spare", { sizeBytes: null, creation: { createOption: "Restore", sourceResourceId } });
  await ended(domain, (await domain.putDisk(restored)).operation);
  await ended(domain, await domain.deleteDisk(id.disk("spare")));
  for (const name of ["p2", "p3", "p5"]) told.deleting.add(name);
  await ended(domain, await domain.deleteCollection(id.collection("shop-points")));
}

function rethrowCrash(error: unknown): void {
  if (error instanceof Crash) throw error;
}

async function adoptAndRelease(world: World, domain: Domain): Promise<void> {
  const path = "/pool/foreign.raw";
  world.files.set(path, { format: "raw", sizeBytes: GIB, content: "foreign" });
  const disk = { bus: "virtio-blk", serial: "s", iothread: false, bootIndex: 1, node: "n", device: "d" } as const;
  world.adoptable.set("/run/web.qmp", {
    vcpus: 1,
    memoryMiB: 512,
    machine: { machineType: "pc", cpuModel: "default", firmware: "bios", nics: [], notes: [] },
    disks: [{ ...disk, path, format: "raw", sizeBytes: GIB }],
    nvramPath: null,
  });
  const adoption = { id: id.vm("web"), location: "local", tags: {}, qmpSocket: "/run/web.qmp", qgaSocket: null };
  await ended(domain, (await domain.importVm(adoption)).operation);
  await ended(domain, await domain.releaseVm(id.vm("web")));
}

async function abandonInMidCopy(world: World, domain: Domain): Promise<void> {
  const hold = Promise.withResolvers<void>();
  world.holdCaptures = hold.promise;
  try {
    const creating = takePoint(domain, "p4").catch(rethrowCrash);
    creating.catch(() => {});
    for (let i = 0; i < 40; i++) await new Promise((resolve) => setImmediate(resolve));
    const deletion = domain.abandonPoint(id.point("shop-points", "p4"));
    deletion.catch(() => {});
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    hold.resolve();
    await ended(domain, await deletion);
    await creating;
  } finally {
    hold.resolve();
    world.holdCaptures = Promise.resolve();
  }
}

/** Runs until the day is over or the service is dead; then lets every task of that life run against the wall. */
async function live(world: World, catalog: Catalog, gate: Gate, told: Told, seed: string): Promise<Domain> {
  const domain = startService(world, catalog, { gate, seed });
  try {
    await domain.recover();
    await day(world, domain, told);
  } catch (error) {
    if (!gate.dead) throw error;
  }
  // Nothing of a dead life reaches the outside any more; this only ends its loops.
  if (gate.dead) await domain.close();
  return domain;
}

async function afterRestart(world: World, catalog: Catalog, gate: Gate, seed: string): Promise<Domain> {
  const domain = startService(world, catalog, { gate, seed });
  try {
    await domain.recover();
    await untilQuiet(catalog, gate);
  } catch (error) {
    if (!gate.dead) throw error;
  }
  if (gate.dead) await domain.close();
  return domain;
}

async function untilQuiet(catalog: Catalog, gate: Gate): Promise<void> {
  for (let quiet = 0, tries = 0; quiet < 4; tries++) {
    if (gate.dead) return;
    assert.ok(tries < 20_000, "the service does not come to rest");
    const open = await catalog.read(
      async (tx) =>
        (await tx.openOperations()).length + (await tx.intents()).length + (await tx.unsettledPoints()).length,
    );
    quiet = open === 0 ? quiet + 1 : 0;
    await turns(12);
  }
}

interface Books {
  readonly points: readonly RestorePoint[];
  readonly committed: ReadonlyMap<string, string>;
}

/** Points of the catalog, and points that the journal says are committed and not deleted: uid → manifest. */
async function books(world: World, catalog: Catalog): Promise<Books> {
  const committed = new Map<string, string>();
  const collectionOf = new Map<string, string>();
  world.journal.forEach((entry, index) => {
    assert.equal(entry.number, index + 1);
    assert.equal(entry.previousHash, world.journal[index - 1]?.hash ?? "");
    const payload = entry.payload as Record<string, string>;
    if (entry.kind === "commit") {
      committed.set(payload["point"] ?? "", payload["manifest"] ?? "");
      collectionOf.set(payload["point"] ?? "", payload["collectionId"] ?? "");
    }
    if (entry.kind === "delete") committed.delete(payload["point"] ?? "");
    if (entry.kind === "collection-delete")
      for (const [uid, collection] of collectionOf) if (collection === payload["collectionId"]) committed.delete(uid);
  });
  const points = await catalog.read((tx) =>
    tx.points(idKey(id.collection("shop-points")), { after: null, limit: 100 }),
  );
  return { points, committed };
}

async function everythingAddsUp(world: World, catalog: Catalog, told: Told): Promise<void> {
  const state = await catalog.read(async (tx) => ({
    intents: await tx.intents(),
    operations: await tx.openOperations(),
    unsettled: await tx.unsettledPoints(),
    pins: await tx.pins(),
    unpublished: await tx.unpublished(),
    head: await tx.journalHead(),
    anchors: await tx.anchors(),
    disks: await tx.resources("disk", `${idKey(GROUP)}/`, { after: null, limit: 100 }),
    vms: await tx.resources("vm", `${idKey(GROUP)}/`, { after: null, limit: 100 }),
  }));
  const { intents, operations, unsettled, pins, unpublished } = state;
  assert.deepEqual(
    { intents, operations, unsettled, pins, unpublished },
    {
      intents: [],
      operations: [],
      unsettled: [],
      pins: [],
      unpublished: [],
    },
  );
  assert.equal(world.captures.size, 0, "a capture is left in QEMU");
  const { points, committed } = await books(world, catalog);
  const succeeded = points.filter((point) => point.state === "Succeeded");
  assert.deepEqual(
    succeeded.map((point) => point.uid).sort(),
    [...committed.keys()].sort(),
    "catalog and journal disagree on what is committed",
  );
  for (const point of succeeded) assert.ok(world.manifests.has(point.manifest ?? ""), "a point without its manifest");
  const names = new Set(succeeded.map((point) => point.name));
  for (const name of told.succeeded)
    assert.ok(names.has(name) || told.deleting.has(name), `${name} was durable and is lost`);
  const lastCommit = world.journal.findLast((entry) => entry.kind === "commit")?.payload as
    | { point: string }
    | undefined;
  for (const anchor of state.anchors)
    assert.equal(anchor.pointUid, lastCommit?.point, "an anchor is not the newest committed point's");
  if (lastCommit) assert.equal(state.anchors.length, 2, "anchors are missing");
  if (state.head) assert.equal(state.head.hash, world.head().hash);
  const owned = new Set([...state.disks.map((disk) => disk.path), "/pool/foreign.raw"]);
  const adopted = state.vms.filter((vm) => vm.control === "adopted").map((vm) => vm.vmUid);
  assert.deepEqual([...world.adopted].sort(), adopted.sort(), "adopted VMs in guard and catalog differ");
  for (const path of world.files.keys()) assert.ok(owned.has(path), `the file ${path} belongs to nothing`);
  for (const disk of state.disks) {
    assert.ok(["Succeeded", "Failed"].includes(disk.provisioningState), `${disk.name} is ${disk.provisioningState}`);
    if (disk.provisioningState === "Succeeded") assert.ok(world.files.has(disk.path ?? ""), `${disk.name} has no file`);
    if (disk.managedBy)
      assert.ok(
        state.vms.some((vm) => vm.id === disk.managedBy),
        `${disk.name} hangs on nothing`,
      );
  }
  for (const vm of state.vms) {
    assert.ok(["Succeeded", "Failed"].includes(vm.provisioningState), `${vm.name} is ${vm.provisioningState}`);
    if (vm.provisioningState === "Succeeded" && vm.desiredPower === "running")
      assert.equal(world.power.get(vm.vmUid), "running", `${vm.name} was to run`);
  }
  for (const uid of world.power.keys())
    assert.ok(
      state.vms.some((vm) => vm.vmUid === uid),
      "a VM runs unknown",
    );
}

async function rebuildAgrees(world: World, catalog: Catalog): Promise<void> {
  const rebuilt = await openCatalog(":memory:");
  const report = await rebuildCatalog({ catalog: rebuilt, repository: worldRepository(world, new Gate()) });
  assert.deepEqual(report.unreadable, []);
  const all = { after: null, limit: 100 };
  const read = (from: Catalog) =>
    from.read(async (tx) => ({
      collections: await tx.resources("collection", "/subscriptions/", all),
      points: (await tx.points(idKey(id.collection("shop-points")), all))
        .filter((point) => point.state === "Succeeded")
        .map((point) => ({ ...point, takenAt: null })),
    }));
  assert.deepEqual(await read(rebuilt), await read(catalog));
  await rebuilt.close();
}

test("a day without a crash adds up, and takes every kind of step", async () => {
  const world = new World();
  const catalog = await openCatalog(":memory:");
  const gate = new Gate();
  const told: Told = { succeeded: new Set(), deleting: new Set() };
  const domain = await live(world, catalog, gate, told, "whole");
  await untilQuiet(catalog, gate);
  await everythingAddsUp(world, catalog, told);
  assert.deepEqual([...told.succeeded].sort(), ["p2", "p1", "p3", "p5"].sort());
  const kinds = new Set(gate.names.map((name) => name.replace(/ .*/, "")));
  for (const kind of ["journal.publish", "captures.release", "captures.giveUp", "restores.renamed", "machines.forget"])
    assert.ok(kinds.has(kind), `the day never takes the step ${kind}`);
  await domain.close();
  await catalog.close();
});

test("the service dies at every step in turn, and nothing is lost or left behind", async (t) => {
  let steps = 0;
  for (let dieAt = 1; ; dieAt++) {
    const world = new World();
    const catalog = await openCatalog(":memory:");
    const gate = new Gate(dieAt);
    const told: Told = { succeeded: new Set(), deleting: new Set() };
    await live(world, catalog, gate, told, `life-${dieAt}`);
    if (!gate.dead) break;
    steps = dieAt;
    const where = `died at step ${dieAt}: ${gate.names.at(-1)} after ${gate.names.at(-2)}`;
    const domain = await afterRestart(world, catalog, new Gate(), `next-${dieAt}`);
    try {
      await everythingAddsUp(world, catalog, told);
      await rebuildAgrees(world, catalog);
    } catch (error) {
      throw new Error(`${where}: ${(error as Error).message}`, { cause: error });
    }
    await domain.close();
    await catalog.close();
  }
  assert.ok(steps > 100, `only ${steps} steps`);
  t.diagnostic(`${steps} steps`);
});

test("the service dies again and again while it recovers", async (t) => {
  const seed = Number(process.env["SEED"] ?? Math.trunc(performance.timeOrigin) % 1_000_000);
  t.diagnostic(`SEED=${seed}`);
  let state = seed;
  const next = (below: number) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return 1 + (state % below);
  };
  for (let round = 0; round < 60; round++) {
    const world = new World();
    const catalog = await openCatalog(":memory:");
    const told: Told = { succeeded: new Set(), deleting: new Set() };
    const deaths: string[] = [];
    let gate = new Gate(next(400));
    let domain = await live(world, catalog, gate, told, `${seed}-${round}`);
    for (let life = 0; gate.dead; life++) {
      deaths.push(gate.names.at(-1) ?? "");
      gate = new Gate(life < 4 ? next(12) : undefined);
      domain = await afterRestart(world, catalog, gate, `${seed}-${round}-${life}`);
    }
    await untilQuiet(catalog, gate);
    try {
      await everythingAddsUp(world, catalog, told);
    } catch (error) {
      throw new Error(`SEED=${seed}, round ${round}, died at ${deaths.join(", ")}: ${(error as Error).message}`);
    }
    await domain.close();
    await catalog.close();
  }
});
