/** The demonstration guest as a VM of a test's own site. */
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { buildGuest, makeDataDisk } from "../../../setup/guest/index.ts";
import { MiB, systemClock } from "../../../src/base/index.ts";
import { connectConsole, type GuestConsole } from "../../../src/programs/quickstart/console.ts";
import type { Stillpoint } from "./stillpoint.ts";

const SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000001";
/** A guest under emulation on a loaded machine takes its time. */
export const GUEST_TIMEOUT_MS = 240_000;

const groupId = (group: string) => `${SUBSCRIPTION}/resourceGroups/${group}`;
export const computeId = (group: string, type: string, name: string) =>
  `${groupId(group)}/providers/Microsoft.Compute/${type}/${name}`;

export interface GuestVm {
  readonly id: string;
  /** OS disk, /b (qcow2), /c (raw), and what was attached beside. */
  readonly disks: readonly [string, string, string, ...string[]];
  /** Their files. */
  readonly images: readonly [string, string, string, ...string[]];
  /** Azure's vmId: names the runtime folder. */
  readonly vmUid: string;
  readonly console: GuestConsole;
  /** Numbers written so far, with fsync on all disks. */
  written(): Promise<number>;
  /** Waits until the guest's writer has got that far. */
  untilWritten(number: number): Promise<void>;
}

export interface GuestVmOptions {
  readonly group?: string;
  readonly name?: string;
  /** PUT to machines/default before the VM is made; `disks` is filled in for what it leaves out. */
  readonly machine?: Readonly<Record<string, unknown>>;
  /** Files in the pool to attach after /c. */
  readonly extraImages?: readonly string[];
}

/** Imports the guest's disks, makes the VM, starts it, and waits until its agent answers and its writer writes. */
export async function createGuestVm(site: Stillpoint, options: GuestVmOptions = {}): Promise<GuestVm> {
  const { group = "test", name = "vm1" } = options;
  const send = (path: string, body: unknown) =>
    site.client.send<{ properties: { vmId: string } }>("PUT", path, { body, timeoutMs: GUEST_TIMEOUT_MS });
  const { extraImages = [] } = options;
  const images = [...(await guestImages(site, name)), ...extraImages];
  const disks = images.map((_, index) =>
    computeId(group, "disks", `${name}-${["os", "b", "c"][index] ?? `extra${index}`}`),
  );
  await send(groupId(group), { location: "local" });
  for (const [index, path] of images.entries())
    await send(disks[index] ?? "", {
      location: "local",
      properties: {
        ...(index === 0 ? { osType: "Linux" } : {}),
        creationData: { createOption: "Import", sourceUri: `pool://host1/main/${path.slice(site.poolDir.length + 1)}` },
      },
    });
  const id = computeId(group, "virtualMachines", name);
  if (options.machine)
    await send(`${id}/providers/Stillpoint.Hypervisor/machines/default`, { properties: options.machine });
  const attached = (disk: string | undefined) => ({ createOption: "Attach", managedDisk: { id: disk } });
  const made = await send(id, {
    location: "local",
    properties: {
      hardwareProfile: { vmSize: "Standard_B1ls" },
      storageProfile: {
        osDisk: { ...attached(disks[0]), osType: "Linux" },
        dataDisks: disks.slice(1).map((disk, lun) => ({ ...attached(disk), lun })),
      },
    },
  });
  await untilAgentReady(site, id);
  const { vmId: vmUid } = made.properties;
  const guest = await consoleOf(site, vmUid);
  const written = async () =>
    Number((await guest.run("cat /run/written 2>/dev/null || echo 0", GUEST_TIMEOUT_MS)).trim());
  const vm: GuestVm = {
    id,
    disks: disks as unknown as GuestVm["disks"],
    images: images as unknown as GuestVm["images"],
    vmUid,
    console: guest,
    written,
    untilWritten: async (number) => {
      const endsMs = systemClock.monotonicMs() + GUEST_TIMEOUT_MS;
      while ((await written()) < number) {
        if (systemClock.monotonicMs() > endsMs) throw new Error(`the guest did not write number ${number} in time`);
        await systemClock.sleep(100);
      }
    },
  };
  await vm.untilWritten(10);
  return vm;
}

/** The serial console of a VM; of its QEMU in this run. */
function consoleOf(site: Stillpoint, vmUid: string): Promise<GuestConsole> {
  return connectConsole(join(site.dataDir, "vms", vmUid, "console.sock"), systemClock);
}

/** Waits until the VM's instance view says that its agent answers. */
export async function untilAgentReady(site: Stillpoint, vmId: string): Promise<void> {
  interface InstanceView {
    readonly vmAgent?: { readonly statuses: readonly { readonly displayStatus: string }[] };
  }
  const endsMs = systemClock.monotonicMs() + GUEST_TIMEOUT_MS;
  for (;;) {
    const view = await site.client.get<InstanceView>(`${vmId}/instanceView`);
    if (view.vmAgent?.statuses.some((status) => status.displayStatus === "Ready")) return;
    if (systemClock.monotonicMs() > endsMs) throw new Error(`no agent of ${vmId}: ${JSON.stringify(view)}`);
    await systemClock.sleep(300);
  }
}

/** Fresh copies of the guest's three disks in the pool: OS (qcow2), b (qcow2), c (raw). */
async function guestImages(site: Stillpoint, name: string): Promise<readonly [string, string, string]> {
  const guest = await buildGuest(() => {});
  const [os, b, c] = [
    join(site.poolDir, `${name}-os.qcow2`),
    join(site.poolDir, `${name}-b.qcow2`),
    join(site.poolDir, `${name}-c.raw`),
  ] as const;
  await copyFile(guest.osDisk, os);
  await makeDataDisk(b, { label: "sp-b", sizeBytes: 128 * MiB, format: "qcow2" });
  await makeDataDisk(c, { label: "sp-c", sizeBytes: 64 * MiB, format: "raw" });
  for (const path of [os, b, c]) site.own(path);
  return [os, b, c];
}
