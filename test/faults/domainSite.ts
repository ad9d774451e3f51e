/** A site for tests of the domain: a world, a catalog, a service over both, and the commands of a user. */
import assert from "node:assert/strict";
import { type ErrorCode, idKey, type OperationId, type ResourceId, StillpointError } from "../../src/base/index.ts";
import { openCatalog } from "../../src/catalog/index.ts";
import {
  type Catalog,
  createDomain,
  type DiskPut,
  type Domain,
  type DomainSettings,
  type PointCreate,
  type RestoreCommand,
  type VmPut,
} from "../../src/domain/index.ts";
import {
  fastClock,
  Gate,
  GIB,
  gatedCatalog,
  seededRandom,
  silentLog,
  World,
  worldCaptures,
  worldImages,
  worldJournal,
  worldMachines,
  worldRepository,
  worldRestores,
} from "./domainWorld.ts";

const SETTINGS: DomainSettings = {
  region: "local",
  host: "host1",
  sizes: { Standard_B1s: { vcpus: 1, memoryMiB: 1024 }, Standard_B2s: { vcpus: 2, memoryMiB: 4096 } },
  skus: { Standard_LRS: { pool: "pool", format: "qcow2" }, Premium_LRS: { pool: "pool", format: "raw" } },
  defaultSku: "Standard_LRS",
  pointsPerVm: 500,
};

export const GROUP = "/subscriptions/5b1f0000-0000-4000-8000-000000000001/resourceGroups/Shop" as ResourceId;
const PROVIDER = `${GROUP}/providers/Microsoft.Compute`;
export const id = {
  disk: (name: string) => `${PROVIDER}/disks/${name}` as ResourceId,
  vm: (name: string) => `${PROVIDER}/virtualMachines/${name}` as ResourceId,
  collection: (name: string) => `${PROVIDER}/restorePointCollections/${name}` as ResourceId,
  point: (collection: string, name: string) =>
    `${PROVIDER}/restorePointCollections/${collection}/restorePoints/${name}` as ResourceId,
};

/** One life of the service. */
export function startService(
  world: World,
  catalog: Catalog,
  options: { readonly gate?: Gate; readonly seed?: string; readonly settings?: Partial<DomainSettings> } = {},
): Domain {
  const gate = options.gate ?? new Gate();
  return createDomain({
    catalog: gatedCatalog(catalog, gate),
    journal: worldJournal(world, gate),
    repository: worldRepository(world, gate),
    captures: worldCaptures(world, gate),
    machines: worldMachines(world, gate),
    images: worldImages(world, gate),
    restores: worldRestores(world, gate),
    settings: { ...SETTINGS, ...options.settings },
    clock: fastClock,
    random: seededRandom(options.seed ?? "first"),
    log: silentLog,
  });
}

export function emptyDisk(name: string, more: Partial<DiskPut> = {}): DiskPut {
  return {
    id: id.disk(name),
    location: "local",
    tags: {},
    sku: null,
    format: null,
    osType: null,
    hyperVGeneration: null,
    sizeBytes: GIB,
    creation: { createOption: "Empty" },
    ...more,
  };
}

export function vm(name: string, osDisk: string, dataDisks: readonly string[], more: Partial<VmPut> = {}): VmPut {
  return {
    id: id.vm(name),
    location: "local",
    tags: {},
    vmSize: "Standard_B1s",
    osDisk: { diskId: id.disk(osDisk), name: null, osType: "Linux", caching: "None" },
    dataDisks: dataDisks.map((disk, lun) => ({ diskId: id.disk(disk), name: null, lun, caching: "None" })),
    extras: {},
    ...more,
  };
}

export function point(collection: string, name: string, more: Partial<PointCreate> = {}): PointCreate {
  return {
    id: id.point(collection, name),
    collectionId: id.collection(collection),
    consistencyMode: "CrashConsistent",
    excludeDisks: [],
    bodyHash: "body",
    ...more,
  };
}

export function restoring(collection: string, name: string, more: Partial<RestoreCommand> = {}): RestoreCommand {
  return {
    pointId: id.point(collection, name),
    targetGroup: GROUP,
    vmName: "shop2",
    diskNames: {},
    onlyDisks: [],
    start: true,
    keepIdentity: false,
    ...more,
  };
}

/** Waits for the operation's end; its error is thrown as the user would see it. */
export async function ended(domain: Domain, operation: { readonly id: OperationId } | null | "done" | undefined) {
  if (operation === null || operation === undefined || operation === "done") return null;
  for (let tries = 0; tries < 100_000; tries++) {
    const now = await domain.getOperation(operation.id);
    if (now.status === "Succeeded") return now;
    if (now.status !== "InProgress") throw new StillpointError("Conflict", `${now.error?.code}: ${now.error?.message}`);
    // Asking costs more than what is waited for: under the test runner each promise is tracked.
    await turns(8);
  }
  throw new Error(`the operation ${operation.id} does not end`);
}

/** Group, two disks, a running VM on them and a collection for it. */
export async function furnish(domain: Domain): Promise<void> {
  await domain.putGroup({ id: GROUP, location: "local", tags: { team: "shop" } });
  await ended(domain, (await domain.putDisk(emptyDisk("os", { osType: "Linux" }))).operation);
  await ended(domain, (await domain.putDisk(emptyDisk("data", { sku: "Premium_LRS" }))).operation);
  await ended(domain, (await domain.putVm(vm("shop", "os", ["data"]))).operation);
  await domain.putCollection({
    id: id.collection("shop-points"),
    location: "local",
    tags: {},
    sourceId: id.vm("shop"),
  });
}

export async function takePoint(domain: Domain, name: string, more: Partial<PointCreate> = {}) {
  const { operation } = await domain.createPoint(point("shop-points", name, more));
  await ended(domain, operation);
  return domain.getPoint(id.point("shop-points", name));
}

/** Everything the catalog holds, to see that a refused command changed nothing. */
async function snapshot(catalog: Catalog): Promise<unknown> {
  const all = { after: null, limit: 1_000 };
  return catalog.read(async (tx) => {
    const collections = await tx.resources("collection", "/subscriptions/", all);
    return {
      groups: await tx.groups(GROUP.split("/")[2] ?? "", all),
      disks: await tx.resources("disk", "/subscriptions/", all),
      vms: await tx.resources("vm", "/subscriptions/", all),
      collections,
      points: await Promise.all(collections.map((collection) => tx.points(idKey(collection.id), all))),
      operations: await tx.openOperations(),
      intents: await tx.intents(),
      pins: await tx.pins(),
      anchors: await tx.anchors(),
      head: await tx.journalHead(),
    };
  });
}

export interface Site {
  readonly world: World;
  readonly catalog: Catalog;
  readonly domain: Domain;
  /** The command is refused with that error, and nothing in catalog or journal has changed. */
  refuses(expected: ExpectedError, command: () => Promise<unknown>): Promise<void>;
  close(): Promise<void>;
}

interface ExpectedError {
  readonly code: ErrorCode;
  readonly target?: string;
  readonly message?: RegExp;
}

/** A furnished site whose service has settled. */
export async function openSite(settings: Partial<DomainSettings> = {}): Promise<Site> {
  const world = new World();
  const catalog = await openCatalog(":memory:");
  const domain = startService(world, catalog, { settings });
  await domain.recover();
  await furnish(domain);
  return {
    world,
    catalog,
    domain,
    refuses: async (expected, command) => {
      // What earlier commands left to do in the background (the release of a capture) is no change of this one.
      await turns(100);
      const before = await snapshot(catalog);
      const entries = world.journal.length;
      await assert.rejects(command, (error: unknown) => {
        assert.ok(error instanceof StillpointError, String(error));
        const { code, target, message } = error;
        assert.equal(code, expected.code, message);
        if (expected.target !== undefined) assert.equal(target, expected.target);
        if (expected.message) assert.match(message, expected.message);
        return true;
      });
      assert.deepEqual(await snapshot(catalog), before, "a refused command changed the catalog");
      assert.equal(world.journal.length, entries, "a refused command wrote to the journal");
    },
    close: async () => {
      await domain.close();
      await catalog.close();
    },
  };
}

/** Lets everything that is ready run. */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** Waits until `condition` holds, by turns of the event loop and not by time. */
export async function until(what: string, condition: () => Promise<boolean> | boolean): Promise<void> {
  for (let tries = 0; tries < 20_000; tries++) {
    if (await condition()) return;
    await turns(1);
  }
  throw new Error(`it never came to this: ${what}`);
}
