/** The walk: a VM writes, two points are taken, the upgrade goes wrong, the VM comes back from point 2. */
import { type Clock, type Random, StillpointError } from "../../base/index.ts";
import type { ApiClient } from "./client.ts";
import type { GuestConsole } from "./console.ts";
import {
  consoleOf,
  createMachine,
  deallocate,
  isWiped,
  makeImages,
  type Names,
  namesOf,
  removeMachine,
  SLOW_TIMEOUT_MS,
  untilAgentAnswers,
  untilWritten,
  written,
} from "./machine.ts";
import { createCollection, type PointRecord, restoreMachine, takePoint } from "./points.ts";
import { proveSequences } from "./proof.ts";
import type { Screen } from "./screen.ts";
import { type QuickstartSite, startSite } from "./site.ts";

export interface WalkResult {
  readonly names: Names;
  readonly points: readonly { readonly name: string; readonly record: PointRecord }[];
  readonly restoreMs: number;
  readonly restoredFrom: string;
}

interface Tools {
  readonly site: QuickstartSite;
  readonly screen: Screen;
  readonly clock: Clock;
  readonly random: Random;
}

/** Walks it all. On failure the VMs of this run are ended, everything else stays to be looked at. */
export async function walk(tools: Tools): Promise<WalkResult> {
  const { site, screen, clock, random } = tools;
  const client = await screen.step("start guard and service", () => startSite(site, clock));
  const names = namesOf(random.bytes(3).toString("hex"), site.poolDir);
  try {
    return await scenes(tools, client, names);
  } catch (error) {
    for (const vm of [names.vm, names.restoredVm]) await deallocate(client, vm).catch(() => {});
    throw error;
  } finally {
    client.close();
  }
}

async function scenes(tools: Tools, client: ApiClient, names: Names): Promise<WalkResult> {
  const { screen, clock } = tools;
  await screen.step("make the guest's disks: OS (qcow2), b (qcow2), c (raw)", () => makeImages(names));
  const vmUid = await screen.step("import the disks, create and start the VM 'web'", () =>
    createMachine(client, names),
  );
  await screen.step("the guest boots from its OS disk until its agent answers", () =>
    untilAgentAnswers(client, names.vm, clock),
  );
  const guest = await consoleOf(tools.site, vmUid, clock);
  try {
    const { points, bounds } = await takeTwoPoints(tools, client, names, guest);
    await goWrong(tools, client, names, guest);
    const back = await restoreAndProve(tools, client, names, bounds);
    await screen.step("remove the broken VM and its disks; its restore points stay", () =>
      removeMachine(client, names),
    );
    return { names, points, restoreMs: back, restoredFrom: "point-2" };
  } finally {
    guest.close();
  }
}

interface Bounds {
  readonly confirmedBefore: number;
  readonly writtenAfter: number;
}

async function takeTwoPoints(tools: Tools, client: ApiClient, names: Names, guest: GuestConsole) {
  const { screen, clock } = tools;
  const point = (name: string, what: string, mode: "CrashConsistent" | null) =>
    screen.step(
      `take ${name} (${what}) while the guest writes`,
      (progress) => takePoint(client, names, name, mode, progress),
      (record) => `${record.reachedMode}, the guest stalled ${Math.round(record.stallMs)} ms`,
    );
  await screen.step("the guest writes, with fsync, in turn on all disks", (progress) =>
    untilWritten(guest, 50, clock, progress),
  );
  await screen.step("create the restore point collection 'web-points'", () => createCollection(client, names));
  const first = await point("point-1", "full", "CrashConsistent");
  const target = (await written(guest)) + 100;
  await screen.step("the guest writes on", async (progress) => {
    await guest.run("dd if=/dev/urandom of=/b/upload bs=64k count=64 conv=fsync 2>/dev/null", SLOW_TIMEOUT_MS);
    await untilWritten(guest, target, clock, progress);
  });
  const confirmedBefore = await written(guest);
  const second = await point("point-2", "incremental", null);
  const bounds: Bounds = { confirmedBefore, writtenAfter: await written(guest) };
  const points = [
    { name: "point-1", record: first },
    { name: "point-2", record: second },
  ];
  return { points, bounds };
}

/** "The upgrade goes wrong." */
async function goWrong({ site, screen }: Tools, client: ApiClient, names: Names, guest: GuestConsole): Promise<void> {
  await screen.step("the upgrade goes wrong: the guest destroys its boot files and data", async () => {
    await guest.run("/etc/sp/destroy", SLOW_TIMEOUT_MS);
    await deallocate(client, names.vm);
    const [os] = names.disks;
    if (!os || !(await isWiped(os.file, site.runDir)))
      throw new StillpointError("InternalError", "The guest was told to destroy its boot disk and has not.");
  });
}

async function restoreAndProve(tools: Tools, client: ApiClient, names: Names, bounds: Bounds): Promise<number> {
  const { site, screen, clock } = tools;
  const restored = await screen.step(
    "restore the whole VM from point-2 as 'web-restored', until its agent answers",
    (progress) => restoreMachine(client, names, "point-2", clock, progress),
  );
  await screen.step(
    "prove the restored disks: no gap, write order over three disks, nothing lost",
    async () => {
      await deallocate(client, names.restoredVm);
      return proveSequences(client, site, restored.disks, bounds);
    },
    ({ last }) => `${last.join(" / ")}; ${bounds.confirmedBefore} were confirmed before the point`,
  );
  return restored.restoreMs;
}
