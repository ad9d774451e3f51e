/** A virtual machine that somebody else's command line has started: q35, UEFI, disks of several kinds, two NICs. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { run, systemClock } from "../../../src/base/index.ts";
import { connectQmp, type QmpClient } from "../../../src/hypervisors/qmp/index.ts";
import type { Stack } from "./stack.ts";

const FIRMWARE = "/usr/share/OVMF";

export interface Foreign {
  readonly qmpSocket: string;
  readonly qgaSocket: string;
  readonly consoleSocket: string;
  readonly ownerSocket: string;
  /** The monitor of the VM's owner: a second one, held all the time. */
  readonly owner: QmpClient;
  readonly disks: { readonly os: string; readonly b: string; readonly c: string };
  /** All that a stranger can leave in this QEMU and beside it. */
  traces(): Promise<Record<string, unknown>>;
  close(): Promise<void>;
}

export interface ForeignOptions {
  readonly name: string;
  readonly images: { readonly os: string; readonly b: string; readonly c: string };
  /** The two ways in which people give OVMF its variable store. */
  readonly flash: "blockdev" | "drive";
  readonly diskDir?: string;
  readonly extra?: readonly string[];
}

/** Starts it on copies of the images in the pool (or `diskDir`); the guest runs when this returns. */
export async function startForeign(stack: Stack, options: ForeignOptions): Promise<Foreign> {
  const { name, images } = options;
  const at = (file: string) => join(options.diskDir ?? join(stack.dir, "pool"), `${name}-${file}`);
  const disks = { os: at("os.qcow2"), b: at("b.qcow2"), c: at("c.raw") };
  const vars = at("vars.fd");
  for (const disk of ["os", "b", "c"] as const) await copyFile(images[disk], disks[disk]);
  await copyFile(join(FIRMWARE, options.flash === "drive" ? "OVMF_VARS.fd" : "OVMF_VARS_4M.fd"), vars);
  // a foreign internal snapshot, made before anybody here looked at the image
  await run("qemu-img", ["snapshot", "-c", "owners-own", disks.b], 60_000);
  const socket = (kind: string) => join(stack.dir, "sockets", `${name}-${kind}.sock`);
  const child = spawn(
    "qemu-system-x86_64",
    [
      ...["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg", "-cpu", "max", "-m", "256"],
      ...(options.flash === "blockdev" ? blockdevFlash(vars) : driveFlash(vars)),
      ...["-qmp", `unix:${socket("qmp")},server=on,wait=off`],
      ...["-chardev", `socket,id=owner,path=${socket("owner")},server=on,wait=off`],
      ...["-mon", "chardev=owner,mode=control"],
      ...["-chardev", `socket,id=line,path=${socket("console")},server=on,wait=off`, "-serial", "chardev:line"],
      ...["-chardev", `socket,id=agent,path=${socket("qga")},server=on,wait=off`, "-device", "virtio-serial-pci"],
      ...["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"],
      ...hardDisks(disks),
      ...["-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:aa:bb:01"],
      ...["-netdev", "user,id=n1,restrict=on", "-device", "e1000,netdev=n1,mac=52:54:00:aa:bb:02"],
      ...(options.extra ?? []),
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  const owner = await ownersMonitor(child, socket("owner"));
  return {
    qmpSocket: socket("qmp"),
    qgaSocket: socket("qga"),
    consoleSocket: socket("console"),
    ownerSocket: socket("owner"),
    owner,
    disks,
    traces: () => traces(owner, stack.config.host.captureDir),
    close: async () => {
      owner.close();
      child.kill("SIGKILL");
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    },
  };
}

function blockdevFlash(vars: string): readonly string[] {
  return [
    ...["-machine", "q35,pflash0=code,pflash1=vars"],
    ...["-blockdev", `driver=file,node-name=code-file,filename=${FIRMWARE}/OVMF_CODE_4M.fd,read-only=on`],
    ...["-blockdev", "driver=raw,node-name=code,file=code-file,read-only=on"],
    ...["-blockdev", `driver=file,node-name=vars-file,filename=${vars}`],
    ...["-blockdev", "driver=raw,node-name=vars,file=vars-file"],
  ];
}

/** The older layout of 2 MiB, as many a VM still has it. */
function driveFlash(vars: string): readonly string[] {
  return [
    ...["-machine", "q35"],
    ...["-drive", `if=pflash,unit=0,format=raw,readonly=on,file=${FIRMWARE}/OVMF_CODE.fd`],
    ...["-drive", `if=pflash,unit=1,format=raw,file=${vars}`],
  ];
}

/** OS on virtio-blk, /b on a SCSI controller with an iothread, /c the old way, with a node name that QEMU made up. */
function hardDisks(disks: Foreign["disks"]): readonly string[] {
  return [
    ...["-blockdev", `driver=qcow2,node-name=osnode,file.driver=file,file.filename=${disks.os},discard=unmap`],
    ...["-device", "virtio-blk-pci,id=osdev,drive=osnode,serial=OSDISK,bootindex=1"],
    ...["-object", "iothread,id=io1", "-device", "virtio-scsi-pci,id=scsi0,iothread=io1"],
    ...["-blockdev", `driver=qcow2,node-name=bnode,file.driver=file,file.filename=${disks.b}`],
    ...["-device", "scsi-hd,id=bdev,bus=scsi0.0,drive=bnode,serial=BDISK"],
    ...["-drive", `if=none,id=cdrive,format=raw,file=${disks.c}`, "-device", "virtio-blk-pci,drive=cdrive"],
  ];
}

async function ownersMonitor(child: ChildProcess, path: string): Promise<QmpClient> {
  for (let tries = 0; ; tries++) {
    try {
      return await connectQmp({ path, onEvent: () => {} });
    } catch (error) {
      if (tries > 100 || child.exitCode !== null) {
        child.kill("SIGKILL");
        throw error;
      }
      await systemClock.sleep(100);
    }
  }
}

interface Named {
  readonly id?: string;
  readonly name?: string;
  readonly "node-name"?: string;
  readonly "dirty-bitmaps"?: readonly Named[];
  readonly image?: { readonly snapshots?: readonly Named[] };
}

async function traces(owner: QmpClient, captureDir: string): Promise<Record<string, unknown>> {
  const list = async (command: string, args = {}) => (await owner.execute(command, args)) as readonly Named[];
  const nodes = await list("query-named-block-nodes", { flat: true });
  const marked = (of: (node: Named) => readonly Named[] | undefined) =>
    nodes.flatMap((node) => (of(node) ?? []).map((one) => `${node["node-name"]} ${one.name}`)).sort();
  return {
    jobs: (await list("query-jobs")).map((job) => job.id).sort(),
    exports: (await list("query-block-exports")).map((one) => one.id).sort(),
    nodes: nodes.map((node) => node["node-name"]).sort(),
    bitmaps: marked((node) => node["dirty-bitmaps"]),
    snapshots: marked((node) => node.image?.snapshots),
    objects: (await list("qom-list", { path: "/objects" })).map((object) => object.name).sort(),
    captureFolder: (await readdir(captureDir)).sort(),
  };
}
