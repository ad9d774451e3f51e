/** The demonstration VM through the API: made from imported disks, watched, taken away. */
import { copyFile, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { findGuest, makeDataDisk } from "../../../setup/guest/index.ts";
import { type Clock, MiB, run, StillpointError } from "../../base/index.ts";
import type { ApiClient } from "./client.ts";
import { connectConsole, type GuestConsole } from "./console.ts";
import type { QuickstartSite } from "./site.ts";

const SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000001";
const LOCATION = "local";
/** Emulated guests on a loaded machine take their time: a boot was 7 s on an idle one. */
export const SLOW_TIMEOUT_MS = 600_000;

/** The resources of one run. */
export interface Names {
  readonly run: string;
  readonly group: string;
  readonly vm: string;
  readonly restoredVm: string;
  readonly collection: string;
  /** OS disk, data disk b, data disk c. */
  readonly disks: readonly { readonly id: string; readonly file: string }[];
}

export function namesOf(run: string, poolDir: string): Names {
  const group = `${SUBSCRIPTION}/resourceGroups/quickstart-${run}`;
  const compute = (type: string, name: string) => `${group}/providers/Microsoft.Compute/${type}/${name}`;
  const disk = (name: string, file: string) => ({ id: compute("disks", name), file: join(poolDir, `${run}-${file}`) });
  return {
    run,
    group,
    vm: compute("virtualMachines", "web"),
    restoredVm: compute("virtualMachines", "web-restored"),
    collection: compute("restorePointCollections", "web-points"),
    disks: [disk("web-os", "os.qcow2"), disk("web-b", "b.qcow2"), disk("web-c", "c.raw")],
  };
}

/** Puts the guest's OS disk and two empty data disks (one qcow2, one raw) into the pool. */
export async function makeImages(names: Names): Promise<void> {
  const guest = findGuest();
  if (!guest)
    throw new StillpointError("NotFound", "The demonstration guest has not been built.", {
      remedy: "Run: sudo npm run quickstart",
    });
  const [os, b, c] = names.disks;
  if (os) await copyFile(guest.osDisk, os.file);
  if (b) await makeDataDisk(b.file, { label: "sp-b", sizeBytes: 256 * MiB, format: "qcow2" });
  if (c) await makeDataDisk(c.file, { label: "sp-c", sizeBytes: 128 * MiB, format: "raw" });
}

/** Group, disks, machine and VM. Data disk b runs in an iothread of its own. Returns the VM's unique id. */
export async function createMachine(client: ApiClient, names: Names): Promise<string> {
  const put = <T>(path: string, body: unknown) => client.send<T>("PUT", path, { body, timeoutMs: SLOW_TIMEOUT_MS });
  await put(names.group, { location: LOCATION });
  for (const [index, disk] of names.disks.entries())
    await put(disk.id, {
      location: LOCATION,
      properties: {
        ...(index === 0 ? { osType: "Linux" } : {}),
        creationData: { createOption: "Import", sourceUri: `pool://host1/main/${disk.file.split("/").at(-1)}` },
      },
    });
  const [os, b, c] = names.disks.map((disk) => disk.id);
  const onDisk = (serial: string, more = {}) => ({ bus: "virtio-blk", serial, ...more });
  await put(`${names.vm}/providers/Stillpoint.Hypervisor/machines/default`, {
    properties: {
      machineType: "q35",
      firmware: "bios",
      disks: {
        [os ?? ""]: onDisk("web-os", { bootIndex: 1 }),
        [b ?? ""]: onDisk("web-b", { iothread: true }),
        [c ?? ""]: onDisk("web-c"),
      },
    },
  });
  const attach = (id: string | undefined) => ({ createOption: "Attach", managedDisk: { id } });
  const made = await put<{ properties: { vmId: string } }>(names.vm, {
    location: LOCATION,
    properties: {
      hardwareProfile: { vmSize: "Standard_B1ls" },
      storageProfile: {
        osDisk: { ...attach(os), osType: "Linux" },
        dataDisks: [
          { ...attach(b), lun: 0 },
          { ...attach(c), lun: 1 },
        ],
      },
    },
  });
  return made.properties.vmId;
}

interface InstanceView {
  readonly vmAgent?: { readonly statuses?: readonly { readonly displayStatus: string }[] };
  readonly statuses?: readonly { readonly code: string; readonly message?: string }[];
}

/** Resolves when the guest agent of the VM answers. */
export async function untilAgentAnswers(client: ApiClient, vm: string, clock: Clock): Promise<void> {
  const endsMs = clock.monotonicMs() + SLOW_TIMEOUT_MS;
  for (;;) {
    const view = await client.get<InstanceView>(`${vm}/instanceView`);
    if (view.vmAgent?.statuses?.some((status) => status.displayStatus === "Ready")) return;
    if (clock.monotonicMs() > endsMs) {
      const shown = view.statuses?.map((status) => `${status.code} ${status.message ?? ""}`.trim()).join(", ");
      throw new StillpointError("DeadlineExceeded", `The guest agent of ${vm} did not answer; the VM: ${shown}.`);
    }
    await clock.sleep(250);
  }
}

/** The guest's serial line: the only way into a VM without a network. */
export function consoleOf(site: QuickstartSite, vmUid: string, clock: Clock): Promise<GuestConsole> {
  return connectConsole(join(site.dataDir, "vms", vmUid, "console.sock"), clock);
}

/** How far the guest's writer has got, with fsync on all disks. */
export async function written(guest: GuestConsole): Promise<number> {
  return Number((await guest.run("cat /run/written 2>/dev/null || echo 0", SLOW_TIMEOUT_MS)).trim());
}

export async function untilWritten(
  guest: GuestConsole,
  number: number,
  clock: Clock,
  progress: (text: string) => void,
): Promise<number> {
  const endsMs = clock.monotonicMs() + SLOW_TIMEOUT_MS;
  for (;;) {
    const now = await written(guest);
    progress(`${now} of ${number}`);
    if (now >= number) return now;
    if (clock.monotonicMs() > endsMs)
      throw new StillpointError("DeadlineExceeded", `The guest's writer stands at ${now} of ${number}.`);
    await clock.sleep(100);
  }
}

/** Whether nothing is left of the boot loader: the first sector of the disk is all zero. */
export async function isWiped(image: string, work: string): Promise<boolean> {
  const sector = join(work, "sector.raw");
  const source = {
    driver: "raw",
    size: 512,
    offset: 0,
    file: { driver: "qcow2", file: { driver: "file", filename: image } },
  };
  await run("qemu-img", ["convert", "-O", "raw", `json:${JSON.stringify(source)}`, sector], 60_000);
  const file = await open(sector, "r");
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(512), 0, 512, 0);
    return bytesRead === 512 && buffer.every((byte) => byte === 0);
  } finally {
    await file.close();
    await rm(sector);
  }
}

/** Ends a VM at once; what is on its disks is what it had written. */
export async function deallocate(client: ApiClient, vm: string): Promise<void> {
  await client.send("POST", `${vm}/deallocate`, { timeoutMs: SLOW_TIMEOUT_MS });
}

/** The broken VM, its disks and their files. Its restore points stay. */
export async function removeMachine(client: ApiClient, names: Names): Promise<void> {
  await client.send("DELETE", names.vm, { timeoutMs: SLOW_TIMEOUT_MS });
  for (const disk of names.disks) {
    await client.send("DELETE", disk.id, { timeoutMs: SLOW_TIMEOUT_MS });
    // deleting an imported disk leaves its file, as it must; this one was ours
    await rm(disk.file, { force: true });
  }
}
