import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { VmUid } from "../../base/index.ts";
import { chooseAccelerator } from "./accelerator.ts";
import { qemuArguments } from "./argv.ts";
import type { MachineDisk, MachineSpec } from "./types.ts";

const SETTINGS = {
  accelerator: "tcg",
  firmwareCode: "/usr/share/OVMF/OVMF_CODE_4M.fd",
  qmpSocket: "/run/vms/1,2/qmp.sock",
  agentSocket: "/run/vms/1,2/qga.sock",
  consoleSocket: "/run/vms/1,2/console.sock",
  pidFile: "/run/vms/1,2/qemu.pid",
} as const;

function disk(changes: Partial<MachineDisk> = {}): MachineDisk {
  const base = {
    node: "d-0123456789ab",
    path: "/pool/a.qcow2",
    format: "qcow2",
    bus: "virtio-blk",
    serial: "os",
  } as const;
  return { ...base, iothread: false, ...changes };
}

function spec(changes: Partial<MachineSpec> = {}): MachineSpec {
  return {
    vm: "11111111-1111-4111-8111-111111111111" as VmUid,
    machineType: "q35",
    cpuModel: "default",
    vcpus: 2,
    memoryMiB: 512,
    firmware: { kind: "bios" },
    disks: [disk()],
    nics: [],
    ...changes,
  };
}

/** The values of an option that is given several times, JSON parsed. */
function values(args: readonly string[], option: string): readonly Record<string, unknown>[] {
  return args.flatMap((arg, at) =>
    arg === option && args[at + 1]?.startsWith("{") ? [JSON.parse(args[at + 1] ?? "")] : [],
  );
}

describe("QEMU's command line", () => {
  test("denies in the sandbox what is not needed, and keeps the process when the guest powers off", () => {
    const args = qemuArguments(spec(), SETTINGS);
    const after = (option: string) => args[args.indexOf(option) + 1];
    assert.equal(after("-sandbox"), "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    for (const option of ["-no-shutdown", "-nodefaults", "-no-user-config", "-S"])
      assert.ok(args.includes(option), option);
    assert.equal(after("-accel"), "tcg");
    assert.equal(after("-cpu"), "max");
    assert.equal(after("-display"), "none");
  });

  test("a comma in a path begins no option", () => {
    const args = qemuArguments(spec({ disks: [disk({ path: "/pool/a,discard=ignore.qcow2" })] }), SETTINGS);
    assert.ok(args.includes("socket,id=qmp0,path=/run/vms/1,,2/qmp.sock,server=on,wait=off"));
    const file = values(args, "-blockdev").find((node) => node["node-name"] === "f-0123456789ab");
    assert.equal(file?.["filename"], "/pool/a,discard=ignore.qcow2");
  });

  test("formats are named, errors stop the machine, and no zeroes are hunted for", () => {
    const args = qemuArguments(spec(), SETTINGS);
    assert.deepEqual(values(args, "-blockdev"), [
      { driver: "file", "node-name": "f-0123456789ab", filename: "/pool/a.qcow2", discard: "unmap" },
      { driver: "qcow2", "node-name": "d-0123456789ab", file: "f-0123456789ab", discard: "unmap" },
    ]);
    const [device] = values(args, "-device").filter((one) => one["driver"] === "virtio-blk-pci");
    assert.equal(device?.["werror"], "stop");
    assert.equal(device?.["rerror"], "stop");
  });

  test("64 disks find a place, in the order of the list", () => {
    const many = Array.from({ length: 64 }, (_, n) =>
      disk({ node: `d-${n.toString(16).padStart(12, "0")}`, path: `/pool/${n}` }),
    );
    const devices = values(qemuArguments(spec({ disks: many }), SETTINGS), "-device").filter((one) => one["drive"]);
    const places = devices.map((one) => String(one["addr"]));
    assert.equal(new Set(places).size, 64);
    assert.deepEqual(places.slice(0, 9), ["10.0", "10.1", "10.2", "10.3", "10.4", "10.5", "10.6", "10.7", "11.0"]);
    assert.deepEqual(
      devices.filter((one) => one["multifunction"]).map((one) => one["addr"]),
      places.filter((one) => one.endsWith(".0")),
    );
  });

  test("an iothread for each virtio-blk disk that wants one, one for all such SCSI disks", () => {
    const args = qemuArguments(
      spec({
        disks: [
          disk({ node: "d-00000000000a", iothread: true }),
          disk({ node: "d-00000000000b", iothread: true, bus: "virtio-scsi" }),
          disk({ node: "d-00000000000c", iothread: true, bus: "virtio-scsi" }),
          disk({ node: "d-00000000000d", bus: "virtio-scsi" }),
        ],
      }),
      SETTINGS,
    );
    assert.deepEqual(
      args.filter((arg) => arg.startsWith("iothread,")),
      ["iothread,id=io-scsi", "iothread,id=io-00000000000a"],
    );
    const buses = values(args, "-device")
      .filter((one) => one["driver"] === "scsi-hd")
      .map((one) => one["bus"]);
    assert.deepEqual(buses, ["scsi-io.0", "scsi-io.0", "scsi.0"]);
  });

  test("UEFI firmware: the code cannot be written, the variables are a node of their own", () => {
    const nodes = values(
      qemuArguments(spec({ firmware: { kind: "uefi", varsPath: "/data/vars.fd" } }), SETTINGS),
      "-blockdev",
    );
    assert.deepEqual(
      nodes.filter((node) => node["read-only"]).map((node) => node["node-name"]),
      ["fw-code-file", "fw-code"],
    );
    assert.ok(nodes.some((node) => node["node-name"] === "nvram" && node["driver"] === "raw"));
  });

  const uid = "11111111-1111-4111-8111-111111111111";
  const hostile: readonly (readonly [string, unknown])[] = [
    ["a VM id that is a path", { vm: "../../etc" }],
    ["a VM id with an option behind it", { vm: `${uid},debug-threads=on` }],
    ["a machine type with options", { machineType: "q35,accel=kvm" }],
    ["a CPU model with options", { cpuModel: "max,+vmx" }],
    ["half a CPU", { vcpus: 0.5 }],
    ["memory as a text", { memoryMiB: "512" }],
    ["a disk of another format", { disks: [disk({ format: "vmdk" as "raw" })] }],
    ["a relative path", { disks: [disk({ path: "a.qcow2" })] }],
    ["a path that climbs", { disks: [disk({ path: "/pool/../etc/shadow" })] }],
    ["a path with a NUL", { disks: [disk({ path: "/pool/a\0b" })] }],
    ["a set of file descriptors", { disks: [disk({ path: "/dev/fdset/1" })] }],
    ["a node name of a user", { disks: [disk({ node: "d-0123456789ab,x" })] }],
    ["two disks of one node", { disks: [disk(), disk()] }],
    ["a serial of 21 characters", { disks: [disk({ serial: "x".repeat(21) })] }],
    ["a serial with a comma", { disks: [disk({ serial: "a,b" })] }],
    [
      "65 disks",
      { disks: Array.from({ length: 65 }, (_, n) => disk({ node: `d-${n.toString(16).padStart(12, "0")}` })) },
    ],
    ["a network card of another kind", { nics: [{ mac: "52:54:00:00:00:01", model: "rtl8139" }] }],
    ["a network address that is none", { nics: [{ mac: "52:54:00:00:00", model: "e1000" }] }],
    ["variables at a relative path", { firmware: { kind: "uefi", varsPath: "vars.fd" } }],
  ];
  for (const [what, changes] of hostile)
    test(`refuses ${what}`, () => {
      assert.throws(() => qemuArguments({ ...spec(), ...(changes as Partial<MachineSpec>) }, SETTINGS), {
        code: "InvalidParameter",
      });
    });
});

describe("the accelerator", () => {
  const real = { deviceUsable: true, pvmModule: false, cpuInfo: "flags\t\t: fpu vme svm ht\n" };
  const cases = [
    ["kvm", "hardware virtualisation", real],
    ["tcg", "kvm_pvm, which opens and cannot boot a stock kernel", { ...real, pvmModule: true }],
    ["tcg", "no svm and no vmx", { ...real, cpuInfo: "flags\t\t: fpu vme ht\n" }],
    ["tcg", "a device that cannot be opened", { ...real, deviceUsable: false }],
  ] as const;
  for (const [wanted, what, facts] of cases)
    test(`${wanted} with ${what}`, () => assert.equal(chooseAccelerator("auto", facts), wanted));

  test("the configuration has the last word", () => {
    assert.equal(chooseAccelerator("kvm", { ...real, pvmModule: true }), "kvm");
    assert.equal(chooseAccelerator("tcg", real), "tcg");
  });
});
