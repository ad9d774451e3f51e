import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  emptyDisk,
  ended,
  GROUP,
  id,
  openSite,
  point,
  type Site,
  startService,
  takePoint,
  until,
  vm,
} from "../../../test/faults/domainSite.ts";
import { GIB } from "../../../test/faults/domainWorld.ts";
import { type ErrorCode, idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { Adopted, MachineConfig, VmPut } from "../index.ts";
import { checkMachine } from "./config.ts";

describe("an own VM", () => {
  let site: Site;
  before(async () => {
    site = await openSite();
    for (const name of ["more", "free"])
      await ended(site.domain, (await site.domain.putDisk(emptyDisk(name))).operation);
  });
  after(() => site.close());

  test("is created from disks that are there, and started with a machine of its own", async () => {
    const made = await site.domain.getVm(id.vm("shop"));
    assert.deepEqual([made.provisioningState, made.desiredPower, made.vcpus], ["Succeeded", "running", 1]);
    assert.equal((await site.domain.vmPower(made)).power, "running");
    const os = await site.domain.getDisk(id.disk("os"));
    assert.equal(os.managedBy, made.id);
    const machine = await site.domain.getMachine(made.id);
    assert.deepEqual(machine.disks[idKey(os.id)], {
      bus: "virtio-blk",
      serial: os.diskUid.replaceAll("-", "").slice(0, 20),
      iothread: false,
      bootIndex: 1,
    });
    assert.match(machine.nics[0]?.mac ?? "", /^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/);
  });

  const unfit: readonly [string, () => VmPut, ErrorCode, string?][] = [
    [
      "an unknown size",
      () => vm("x", "free", [], { vmSize: "Huge" }),
      "InvalidParameter",
      "properties.hardwareProfile.vmSize",
    ],
    [
      "a disk that is not there",
      () => vm("x", "none", []),
      "ResourceNotFound",
      "properties.storageProfile.osDisk.managedDisk.id",
    ],
    ["a disk of another VM", () => vm("x", "free", ["data"]), "AttachDiskWhileBeingDetached"],
    ["one disk twice", () => vm("x", "free", ["FREE"]), "InvalidParameter"],
    ["a name of 65 characters", () => vm("x".repeat(65), "free", []), "InvalidResourceName"],
    ["another location", () => vm("x", "free", [], { location: "mars" }), "InvalidParameter"],
  ];
  for (const [what, command, code, target] of unfit)
    test(`is refused with ${what}`, () =>
      site.refuses({ code, ...(target === undefined ? {} : { target }) }, () => site.domain.putVm(command())));

  test("two disks on one lun are refused", async () => {
    const command = vm("x", "free", ["more"]);
    const twice = [
      ...command.dataDisks,
      { ...(command.dataDisks[0] as (typeof command.dataDisks)[0]), diskId: id.disk("other") },
    ];
    await site.refuses({ code: "InvalidParameter", target: "properties.storageProfile.dataDisks[1].lun" }, () =>
      site.domain.putVm({ ...command, dataDisks: twice }),
    );
  });

  test("put again with other tags changes them while it runs; disks and size wait for its deallocation", async () => {
    const same = vm("shop", "os", ["data"], { tags: { a: "1" } });
    assert.deepEqual((await site.domain.putVm(same)).resource.tags, { a: "1" });
    const larger = vm("shop", "os", ["data", "more"], { vmSize: "Standard_B2s" });
    await site.refuses({ code: "Conflict", message: /running.*Deallocate it first/ }, () => site.domain.putVm(larger));
    await ended(site.domain, await site.domain.deallocateVm(id.vm("shop")));
    const changed = (await site.domain.putVm(larger)).resource;
    assert.deepEqual([changed.vcpus, changed.dataDisks.map((disk) => disk.lun)], [2, [0, 1]]);
    assert.equal((await site.domain.getDisk(id.disk("more"))).managedBy, changed.id);
    assert.ok(changed.machine.disks[idKey(id.disk("more"))]);
    await site.refuses({ code: "PropertyChangeNotAllowed" }, () => site.domain.putVm(vm("shop", "free", ["data"])));
    const smaller = (await site.domain.putVm(vm("shop", "os", ["data"]))).resource;
    assert.equal((await site.domain.getDisk(id.disk("more"))).managedBy, null);
    assert.deepEqual(Object.keys(smaller.machine.disks).length, 2);
  });

  test("its machine is changed while deallocated, checked, and refused while it runs", async () => {
    const machine = await site.domain.getMachine(id.vm("shop"));
    const uefi: MachineConfig = { ...machine, firmware: "uefi", machineType: "pc" };
    assert.deepEqual(await site.domain.putMachine(id.vm("shop"), uefi), uefi);
    await site.refuses({ code: "InvalidParameter", message: /not attached/ }, () =>
      site.domain.putMachine(id.vm("shop"), {
        ...uefi,
        disks: { "/strange": Object.values(machine.disks)[0] as never },
      }),
    );
    await ended(site.domain, await site.domain.startVm(id.vm("shop")));
    assert.ok((await site.domain.getVm(id.vm("shop"))).nvramPath, "a UEFI machine got its variable store");
    await site.refuses({ code: "Conflict" }, () => site.domain.putMachine(id.vm("shop"), machine));
  });

  test("takes the machine that was put before it existed", async () => {
    const nics = [{ mac: "52:54:00:00:00:01", model: "e1000" }] as const;
    const wanted: MachineConfig = {
      machineType: "pc",
      cpuModel: "qemu64",
      firmware: "bios",
      disks: {},
      nics,
      notes: [],
    };
    await site.domain.putMachine(id.vm("later"), wanted);
    assert.deepEqual(await site.domain.getMachine(id.vm("later")), wanted);
    await ended(site.domain, (await site.domain.putVm(vm("later", "free", []))).operation);
    const made = await site.domain.getMachine(id.vm("later"));
    assert.deepEqual([made.machineType, made.nics], ["pc", nics]);
    await ended(site.domain, await site.domain.deleteVm(id.vm("later")));
    await assert.rejects(site.domain.getMachine(id.vm("later")), { code: "ResourceNotFound" });
  });

  test("whose start failed says so, and starts when put again", async () => {
    site.world.startFails = new StillpointError("HypervisorUnavailable", "There is no QEMU.");
    const { operation } = await site.domain.putVm(vm("poor", "free", []));
    await assert.rejects(ended(site.domain, operation), /There is no QEMU/);
    assert.equal((await site.domain.getVm(id.vm("poor"))).provisioningState, "Failed");
    site.world.startFails = null;
    await ended(site.domain, (await site.domain.putVm(vm("poor", "free", []))).operation);
    assert.equal((await site.domain.getVm(id.vm("poor"))).provisioningState, "Succeeded");
    await ended(site.domain, await site.domain.deleteVm(id.vm("poor")));
    assert.equal((await site.domain.getDisk(id.disk("free"))).managedBy, null);
  });

  test("an unknown power is told as unreachable, never as off", async () => {
    site.world.guardAway = true;
    const { power, reason } = await site.domain.vmPower(await site.domain.getVm(id.vm("shop")));
    assert.deepEqual([power, reason], ["unreachable", "The guard does not answer."]);
    site.world.guardAway = false;
  });
});

describe("after the host was rebooted", () => {
  test("VMs that ran are started again, others stay off; one whose disks are being read waits", async () => {
    const site = await openSite();
    const { world, domain, catalog } = site;
    await ended(domain, (await domain.putDisk(emptyDisk("quiet-os"))).operation);
    await ended(domain, (await domain.putVm(vm("quiet", "quiet-os", []))).operation);
    await ended(domain, await domain.deallocateVm(id.vm("quiet")));
    const hold = Promise.withResolvers<void>();
    world.holdCaptures = hold.promise;
    await domain.createPoint(point("shop-points", "p1"));
    await until("copying", async () => (await domain.getPoint(id.point("shop-points", "p1"))).percent === 90);
    await domain.close();
    world.power.clear();

    const next = startService(world, catalog, { seed: "next" });
    await next.recover();
    const shop = await next.getVm(id.vm("shop"));
    await until("copying again", async () => (await next.getPoint(id.point("shop-points", "p1"))).percent === 90);
    assert.equal((await next.vmPower(shop)).power, "deallocated");
    hold.resolve();
    await until("it runs", async () => (await next.vmPower(shop)).power === "running");
    assert.equal((await next.getPoint(id.point("shop-points", "p1"))).state, "Succeeded");
    assert.equal((await next.vmPower(await next.getVm(id.vm("quiet")))).power, "deallocated");
    await next.close();
    await catalog.close();
  });
});

describe("an adopted VM", () => {
  let site: Site;
  before(async () => {
    site = await openSite();
    site.world.adoptable.set("/run/qemu/web.qmp", found("/pool/web.qcow2"));
    site.world.adoptable.set("/run/qemu/out.qmp", found("/home/out.qcow2"));
  });
  after(() => site.close());
  const adoption = (name: string, qmpSocket: string) => ({
    id: id.vm(name),
    location: "local",
    tags: {},
    qmpSocket,
    qgaSocket: null,
  });

  test("comes with its disks, the one it boots from first", async () => {
    await ended(site.domain, (await site.domain.importVm(adoption("web", "/run/qemu/web.qmp"))).operation);
    const made = await site.domain.getVm(id.vm("web"));
    assert.deepEqual([made.control, made.provisioningState, made.memoryMiB], ["adopted", "Succeeded", 2048]);
    assert.deepEqual([made.osDisk?.name, made.dataDisks.map((disk) => disk.name)], ["web-os", ["web-data0"]]);
    const os = await site.domain.getDisk(id.disk("web-os"));
    assert.deepEqual([os.path, os.origin, os.managedBy], ["/pool/web.qcow2", "foreign", made.id]);
    assert.deepEqual(made.machine.notes, ["a TPM"]);
  });

  test("is not switched, deleted or grown here", async () => {
    await site.refuses({ code: "OperationNotAllowed", message: /vm release/ }, () => site.domain.startVm(id.vm("web")));
    await site.refuses({ code: "OperationNotAllowed", message: /vm release/ }, () =>
      site.domain.deleteVm(id.vm("web")),
    );
    await site.refuses({ code: "Conflict" }, () =>
      site.domain.updateDisk(id.disk("web-os"), { tags: null, sizeBytes: (4 * GIB) as never }),
    );
    await site.refuses({ code: "Conflict", message: /Delete it instead/ }, () => site.domain.releaseVm(id.vm("shop")));
  });

  test("outside the pools, already known or silent is let go again and leaves no row", async () => {
    for (const [name, socket, words] of [
      ["out", "/run/qemu/out.qmp", /lies in no pool/],
      ["web2", "/run/qemu/web.qmp", /is the disk .*web-data0' already/],
      ["mute", "/run/qemu/none.qmp", /no greeting/],
    ] as const) {
      const { operation } = await site.domain.importVm(adoption(name, socket));
      await assert.rejects(ended(site.domain, operation), words);
      await assert.rejects(site.domain.getVm(id.vm(name)), { code: "ResourceNotFound" });
    }
    assert.equal(site.world.adopted.size, 1);
  });

  test("is released with every row but its points, and its files stay", async () => {
    const collection = id.collection("web-points");
    await site.domain.putCollection({ id: collection, location: "local", tags: {}, sourceId: id.vm("web") });
    await ended(site.domain, (await site.domain.createPoint(point("web-points", "w1"))).operation);
    await ended(site.domain, await site.domain.releaseVm(id.vm("web")));
    assert.equal(site.world.adopted.size, 0);
    await assert.rejects(site.domain.getDisk(id.disk("web-os")), { code: "ResourceNotFound" });
    assert.equal((await site.domain.getPoint(id.point("web-points", "w1"))).state, "Succeeded");
    assert.deepEqual(await site.catalog.read((tx) => tx.anchors()), []);
    assert.equal(await site.domain.releaseVm(id.vm("web")), null);
  });
});

function found(path: string): Adopted {
  const disk = (at: string, bootIndex: number | null) => ({
    path: at,
    format: "qcow2" as const,
    sizeBytes: GIB,
    bus: "virtio-scsi" as const,
    serial: "",
    iothread: true,
    bootIndex,
    node: `node-${at}`,
    device: at,
  });
  return {
    vcpus: 2,
    memoryMiB: 2048,
    machine: { machineType: "q35", cpuModel: "max", firmware: "uefi", nics: [], notes: ["a TPM"] },
    disks: [disk(`${path}.data`, null), disk(path, 1)],
    nvramPath: "/foreign/vars.fd",
  };
}

describe("the machine a user gives", () => {
  const fine: MachineConfig = {
    machineType: "q35",
    cpuModel: "default",
    firmware: "bios",
    disks: { a: { bus: "virtio-blk", serial: "abc", iothread: true, bootIndex: 1 } },
    nics: [{ mac: "02:00:00:00:00:01", model: "e1000" }],
    notes: [],
  };
  test("is taken when all is well", () => checkMachine(fine));
  const nic = fine.nics[0] as MachineConfig["nics"][number];
  const disk = fine.disks["a"] as MachineConfig["disks"][string];
  const bad: readonly [string, Partial<MachineConfig>, string][] = [
    ["a serial with a comma", { disks: { a: { ...disk, serial: "a,b" } } }, "disks['a'].serial"],
    ["a serial of 21 characters", { disks: { a: { ...disk, serial: "x".repeat(21) } } }, "disks['a'].serial"],
    ["one serial twice", { disks: { a: disk, b: disk } }, "disks['b'].serial"],
    ["boot index 0", { disks: { a: { ...disk, bootIndex: 0 } } }, "disks['a'].bootIndex"],
    ["a multicast address", { nics: [{ ...nic, mac: "03:00:00:00:00:01" }] }, "nics[0].mac"],
    ["an address with more behind it", { nics: [{ ...nic, mac: `${nic.mac},x=y` }] }, "nics[0].mac"],
    ["one address twice", { nics: [nic, nic] }, "nics[1].mac"],
    ["nine cards", { nics: Array.from({ length: 9 }, () => nic) }, "nics"],
  ];
  for (const [what, part, target] of bad)
    test(`is refused with ${what}`, () =>
      assert.throws(() => checkMachine({ ...fine, ...part }), { code: "InvalidParameter", target }));
});

test("a group is deleted only when it is empty, and says what is left", async () => {
  const site = await openSite();
  await site.refuses(
    {
      code: "Conflict",
      message: /virtualMachines\/shop, disks\/data, disks\/os, restorePointCollections\/shop-points/,
    },
    () => site.domain.deleteGroup(GROUP),
  );
  await site.refuses({ code: "PropertyChangeNotAllowed", target: "location" }, () =>
    site.domain.putGroup({ id: GROUP, location: "elsewhere", tags: {} }),
  );
  const empty = GROUP.replace("Shop", "Empty") as ResourceId;
  assert.equal((await site.domain.putGroup({ id: empty, location: "local", tags: {} })).created, true);
  assert.equal(await site.domain.deleteGroup(empty), "done");
  assert.equal(await site.domain.deleteGroup(empty), null);
  assert.equal((await takePoint(site.domain, "p1")).state, "Succeeded");
  await site.close();
});
