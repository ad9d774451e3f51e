import assert from "node:assert/strict";
import { test } from "node:test";
import { type QmpClient, QmpError } from "../qmp/index.ts";
import { readMachine, readUncapturable } from "./hardware.ts";

const PERIPHERAL = [
  { name: "type", type: "string" },
  { name: "tpm0", type: "child<tpm-crb>" },
  { name: "gpu", type: "child<vfio-pci>" },
  { name: "disk0", type: "child<virtio-blk-pci>" },
  { name: "net0", type: "child<e1000>" },
  { name: "port1", type: "child<pcie-root-port>" },
];
const ANONYMOUS = [
  { name: "device[0]", type: "child<VGA>" },
  { name: "device[1]", type: "child<vhost-user-fs-pci>" },
];

/** Answers as a QEMU with a TPM, a passed-through device and a display would. */
const qmp: QmpClient = {
  version: "7.2.22",
  closed: new Promise(() => {}),
  close: () => {},
  execute: async (command, args = {}) => {
    if (command === "qom-list") return args["path"] === "/machine/peripheral" ? PERIPHERAL : ANONYMOUS;
    if (command === "query-cpus-fast") return [{ "qom-path": "/machine/cpu" }, {}];
    if (command === "query-memory-size-summary") return { "base-memory": 512 * 1024 * 1024 };
    const property = `${args["path"]} ${args["property"]}`;
    if (property === "/machine/cpu type") return "qemu64-x86_64-cpu";
    if (property === "/machine type") return "pc-q35-7.2-machine";
    if (property === "/machine/peripheral/net0 mac") return "52:54:00:00:00:01";
    throw new QmpError(command, "Property not found");
  },
};

test("TPM state and passed-through devices are named as what a point cannot carry", async () => {
  assert.deepEqual(await readUncapturable(qmp), ["tpm-crb tpm0", "vfio-pci gpu", "vhost-user-fs-pci device[1]"]);
});

test("a foreign machine is told apart into what an own one has and what it never has", async () => {
  const machine = await readMachine(qmp, [], true);
  assert.deepEqual(
    [machine.machineType, machine.cpuModel, machine.vcpus, machine.memoryMiB],
    ["pc-q35-7.2", "qemu64", 2, 512],
  );
  assert.deepEqual(machine.nics, [{ mac: "52:54:00:00:00:01", model: "e1000" }]);
  assert.deepEqual(machine.otherDevices, ["VGA device[0]"]);
  assert.equal(machine.firmware, "uefi");
});
