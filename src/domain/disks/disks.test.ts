import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { emptyDisk, ended, id, openSite, type Site, takePoint, vm } from "../../../test/faults/domainSite.ts";
import { GIB } from "../../../test/faults/domainWorld.ts";
import { bytes, type ErrorCode, type ResourceId, StillpointError } from "../../base/index.ts";
import type { DiskPut } from "../index.ts";

describe("a disk", () => {
  let site: Site;
  before(async () => {
    site = await openSite();
    await takePoint(site.domain, "p1");
  });
  after(() => site.close());

  const sourceOf = async (name: string) => {
    const point = await site.domain.getPoint(id.point("shop-points", "p1"));
    const found = point.disks.find((disk) => disk.diskName === name);
    assert.ok(found);
    return found.id;
  };
  const restoredFrom = async (name: string, more: Partial<DiskPut>): Promise<DiskPut> =>
    emptyDisk("restored", {
      sizeBytes: null,
      creation: { createOption: "Restore", sourceResourceId: await sourceOf(name) },
      ...more,
    });

  test("made empty has the size and format asked for, and its file goes with it", async () => {
    const { operation, resource } = await site.domain.putDisk(
      emptyDisk("scratch", { sku: "premium_lrs", sizeBytes: bytes(3 * GIB) }),
    );
    assert.equal(resource.provisioningState, "Creating");
    await ended(site.domain, operation);
    const disk = await site.domain.getDisk(id.disk("SCRATCH"));
    assert.deepEqual([disk.provisioningState, disk.sku, disk.format], ["Succeeded", "Premium_LRS", "raw"]);
    assert.deepEqual(site.world.files.get(disk.path ?? "")?.sizeBytes, 3 * GIB);
    const gone = await ended(site.domain, await site.domain.deleteDisk(disk.id));
    assert.deepEqual(gone?.output, { fileKept: null });
    assert.equal(site.world.files.has(disk.path ?? ""), false);
    assert.equal(await site.domain.deleteDisk(disk.id), null);
  });

  test("imported is there at once, is one disk per file, and its file stays", async () => {
    site.world.files.set("/pool/golden.qcow2", { format: "qcow2", sizeBytes: bytes(1_000_448), content: "golden" });
    const imported = (name: string) =>
      emptyDisk(name, {
        sizeBytes: null,
        creation: { createOption: "Import", sourceUri: "pool://host1/pool/golden.qcow2" },
      });
    const { operation, resource } = await site.domain.putDisk(imported("golden"));
    assert.equal(operation, null);
    assert.deepEqual(
      [resource.origin, resource.sizeBytes, resource.path],
      ["imported", 1_000_448, "/pool/golden.qcow2"],
    );
    await site.refuses({ code: "Conflict", message: /disks\/golden/ }, () => site.domain.putDisk(imported("twin")));
    const gone = await ended(site.domain, await site.domain.deleteDisk(id.disk("golden")));
    assert.deepEqual(gone?.output, { fileKept: "/pool/golden.qcow2" });
    assert.ok(site.world.files.has("/pool/golden.qcow2"));
  });

  test("restored has the bytes of the point, at the source's size or a larger one", async () => {
    await site.refuses({ code: "InvalidParameter", target: "properties.diskSizeGB" }, async () =>
      site.domain.putDisk(await restoredFrom("data", { sizeBytes: bytes(GIB / 2) })),
    );
    await ended(
      site.domain,
      (await site.domain.putDisk(await restoredFrom("data", { sizeBytes: bytes(2 * GIB) }))).operation,
    );
    const disk = await site.domain.getDisk(id.disk("restored"));
    const source = await site.domain.getDisk(id.disk("data"));
    const content = (path: string | null) => site.world.files.get(path ?? "")?.content;
    assert.equal(content(disk.path), content(source.path));
    assert.equal(disk.sizeBytes, 2 * GIB);
    assert.notEqual(disk.diskUid, source.diskUid);
    await ended(site.domain, await site.domain.deleteDisk(disk.id));
  });

  const unfit: readonly [string, () => Promise<DiskPut>, ErrorCode, string][] = [
    ["no size", async () => emptyDisk("x", { sizeBytes: null }), "InvalidParameter", "properties.diskSizeGB"],
    ["size 0", async () => emptyDisk("x", { sizeBytes: bytes(0) }), "InvalidParameter", "properties.diskSizeGB"],
    [
      "an odd size",
      async () => emptyDisk("x", { sizeBytes: bytes(1000) }),
      "InvalidParameter",
      "properties.diskSizeGB",
    ],
    ["an unknown sku", async () => emptyDisk("x", { sku: "Ultra" }), "InvalidParameter", "sku.name"],
    ["another location", async () => emptyDisk("x", { location: "mars" }), "InvalidParameter", "location"],
    ["a bad name", async () => emptyDisk("-x"), "InvalidResourceName", "diskName"],
    [
      "a source that is no disk restore point",
      async () => restoredFrom("os", { creation: { createOption: "Restore", sourceResourceId: id.disk("os") } }),
      "InvalidParameter",
      "properties.creationData.sourceResourceId",
    ],
    [
      "a disk the point does not hold",
      async () =>
        restoredFrom("os", {
          creation: {
            createOption: "Restore",
            sourceResourceId: `${id.point("shop-points", "p1")}/diskRestorePoints/none` as ResourceId,
          },
        }),
      "ResourceNotFound",
      "properties.creationData.sourceResourceId",
    ],
  ];
  for (const [what, command, code, target] of unfit)
    test(`is refused with ${what}`, () =>
      site.refuses({ code, target }, async () => site.domain.putDisk(await command())));

  test("put again the same way is the same disk; made otherwise is a conflict", async () => {
    const before = await site.domain.getDisk(id.disk("data"));
    const again = await site.domain.putDisk(emptyDisk("data", { sku: "Premium_LRS", tags: { a: "b" } }));
    assert.deepEqual([again.created, again.operation, again.resource], [false, null, { ...before, tags: { a: "b" } }]);
    await site.refuses({ code: "PropertyChangeNotAllowed", target: "properties.creationData" }, async () =>
      site.domain.putDisk({ ...(await restoredFrom("data", {})), id: id.disk("data") }),
    );
  });

  test("only grows: online under a running VM, in its file otherwise", async () => {
    const grow = (name: string, gib: number) =>
      site.domain.updateDisk(id.disk(name), { tags: null, sizeBytes: bytes(gib * GIB) });
    await ended(site.domain, (await grow("data", 2)).operation);
    const disk = await site.domain.getDisk(id.disk("data"));
    assert.deepEqual([disk.sizeBytes, disk.provisioningState, disk.tags], [2 * GIB, "Succeeded", { a: "b" }]);
    assert.equal(site.world.files.get(disk.path ?? "")?.sizeBytes, 2 * GIB);
    await site.refuses({ code: "InvalidParameter", target: "properties.diskSizeGB" }, () => grow("data", 1));
  });

  test("attached to a VM is not deleted", async () => {
    await site.refuses({ code: "OperationNotAllowed", message: /attached to the virtual machine 'shop'/ }, () =>
      site.domain.deleteDisk(id.disk("os")),
    );
  });

  test("whose creation failed says why, and can be made again", async () => {
    const { world, domain } = site;
    const failing = site.domain.putDisk({ ...(await restoredFrom("os", {})), id: id.disk("again") });
    const { operation } = await failing;
    // The source's row vanishes below the running work, as damage would make it.
    world.holdRestores = Promise.reject(new StillpointError("RepositoryDamaged", "The pack 7 is damaged."));
    world.holdRestores.catch(() => {});
    await assert.rejects(ended(domain, operation), /pack 7 is damaged/);
    const failed = await domain.getDisk(id.disk("again"));
    assert.deepEqual([failed.provisioningState, failed.error?.code], ["Failed", "RepositoryDamaged"]);
    assert.deepEqual(await site.catalog.read((tx) => tx.pins()), []);
    await site.refuses({ code: "Conflict" }, () => domain.putVm(vm("x", "again", [])));
    world.holdRestores = Promise.resolve();
    await ended(domain, (await domain.putDisk({ ...(await restoredFrom("os", {})), id: id.disk("again") })).operation);
    assert.equal((await domain.getDisk(id.disk("again"))).provisioningState, "Succeeded");
  });
});
