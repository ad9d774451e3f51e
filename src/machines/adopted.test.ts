import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, MiB, type VmUid } from "../base/index.ts";
import type { AdoptedMachine, DiskFacts, Incarnation, VmFacts } from "../guard/protocol.ts";
import { adopted } from "./adopted.ts";

function disk(node: string, change: Partial<DiskFacts> = {}): DiskFacts {
  return {
    node,
    device: `/machine/peripheral/${node}`,
    path: `/pool/${node}`,
    format: "qcow2",
    qcow2Version: 3,
    sizeBytes: bytes(64 * MiB),
    allocatedBytes: bytes(MiB),
    iothread: false,
    readOnly: false,
    serial: "",
    bootIndex: null,
    filters: [],
    bitmaps: [],
    stopsOnWriteError: false,
    ...change,
  };
}

function facts(disks: readonly DiskFacts[], machine: Partial<AdoptedMachine> = {}): VmFacts {
  return {
    vm: "0b9e0a52-8d0c-4d5e-9a3f-2f6a3c1d7e11" as VmUid,
    kind: "adopted",
    incarnation: "i" as Incarnation,
    pid: null,
    agent: "absent",
    qemuVersion: "7.2.22",
    status: "running",
    migrating: false,
    accelerator: "tcg",
    disks,
    nvram: null,
    jobs: [],
    exports: [],
    nodes: [],
    uncapturable: [],
    machine: {
      machineType: "pc-q35-7.2",
      cpuModel: "max",
      vcpus: 2,
      memoryMiB: 512,
      firmware: "bios",
      firmwareFile: "",
      disks: disks.map(({ node }) => ({ node, bus: "virtio-blk" as const })),
      nics: [],
      otherDevices: [],
      ...machine,
    },
  };
}

test("the order of booting is kept, counted from 1 as own machines count", () => {
  const found = adopted(facts([disk("c", { bootIndex: 7 }), disk("a", { bootIndex: 0 }), disk("n")]));
  assert.deepEqual(
    found.disks.map((one) => one.bootIndex),
    [2, 1, null],
  );
  assert.deepEqual(found.machine.notes, []);
});

test("versions of machine types are the type; what cannot be said is replaced and noted", () => {
  assert.equal(adopted(facts([disk("a")], { machineType: "pc-i440fx-7.2" })).machine.machineType, "pc");
  const odd = adopted(
    facts([disk("a", { serial: "has a space" })], {
      machineType: "microvm",
      cpuModel: "EPYC",
      firmwareFile: "/fw/OVMF.fd",
      disks: [{ node: "a", bus: "other" }],
      nics: [{ mac: "52:54:00:AA:00:01", model: "rtl8139" }],
      otherDevices: ["VGA display0"],
    }),
  );
  assert.equal(odd.machine.machineType, "q35");
  assert.equal(odd.disks[0]?.serial, "");
  assert.deepEqual(odd.machine.nics, [{ mac: "52:54:00:aa:00:01", model: "virtio-net-pci" }]);
  const notes = odd.machine.notes.join("\n");
  for (const what of [/microvm/, /OVMF\.fd/, /EPYC/, /rtl8139/, /VGA display0/, /bus/, /serial/])
    assert.match(notes, what);
});

test("read-only disks and disks that are no file are left out; another format is refused with the remedy", () => {
  const found = adopted(facts([disk("a"), disk("ro", { readOnly: true }), disk("net", { path: "", format: "rbd" })]));
  assert.deepEqual(
    found.disks.map((one) => one.node),
    ["a"],
  );
  assert.throws(() => adopted(facts([disk("a", { format: "vmdk" })])), /vmdk.*raw and qcow2/);
});

test("more network cards than an own machine has are left out, and named", () => {
  const nics = Array.from({ length: 9 }, (_, index) => ({ mac: `52:54:00:00:00:0${index}`, model: "e1000" }));
  const found = adopted(facts([disk("a")], { nics }));
  assert.equal(found.machine.nics.length, 8);
  assert.match(found.machine.notes.join(), /52:54:00:00:00:08 is one too many/);
});
