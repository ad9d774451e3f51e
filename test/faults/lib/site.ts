/**
 * A whole installation in processes of their own, with a guest of four disks that writes all the time: what the crash
 * tests kill and look at. The fourth disk holds random bytes that nobody writes to, so its truth is known beforehand.
 */
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MiB, type VmUid } from "../../../src/base/index.ts";
import type { PointRecord } from "../../../src/domain/index.ts";
import {
  type CaptureState,
  connectGuard,
  type Guard,
  guardSocketPath,
  type VmFacts,
} from "../../../src/guard/protocol.ts";
import { computeId, createGuestVm, type GuestVm, type Stillpoint, startStillpoint } from "../../guest/lib/index.ts";
import { dataDigestOfFile } from "./digest.ts";
import { makeOrders, type Orders } from "./orders.ts";
import { within } from "./wait.ts";

/** What a point's record tells. */
export interface PointFacts {
  readonly provisioningState: string;
  readonly takenAt?: string;
  readonly manifest?: string;
  readonly error?: { readonly code: string; readonly message: string };
  readonly record?: PointRecord;
}

export interface FaultSite {
  readonly site: Stillpoint;
  readonly vm: GuestVm;
  /** A connection of the test's own to the guard. */
  readonly guard: Guard;
  readonly orders: { readonly service: Orders; readonly guard: Orders };
  /** Of the fourth disk. */
  readonly fixedDigest: string;
  /** How many disks the guest has. */
  readonly disks: number;
  pointId(name: string): string;
  /** Asks for a point; resolves with the error when it has failed, or its service is gone; null when it succeeded. */
  ask(name: string, mode?: "CrashConsistent" | null): Promise<Error | null>;
  /** Null when there is no such point. */
  point(name: string): Promise<PointFacts | null>;
  /** Waits until the point is Succeeded or Failed. */
  settled(name: string): Promise<PointFacts>;
  /** Deletes the point; resolves with the error, if any. */
  remove(name: string): Promise<Error | null>;
  facts(): Promise<VmFacts>;
  /** What the guard holds open. */
  captures(): Promise<readonly CaptureState[]>;
  /** Waits until the process has ended by itself. */
  ended(name: "service" | "guard"): Promise<void>;
  /** As systemd would: starts what has ended. Waits until both answer. */
  revive(): Promise<void>;
  stop(): Promise<void>;
}

const ENDED_MS = 120_000;
const SETTLED_MS = 180_000;
const FIXED_BYTES = 16 * MiB;

/** Boots the guest, the second disk in an iothread, and makes the collection. */
export async function openFaultSite(): Promise<FaultSite> {
  // short: a unix socket's path holds 107 bytes
  const folder = await mkdtemp(join(tmpdir(), "sp-"));
  await mkdir(join(folder, "run"), { mode: 0o700 });
  const orders = {
    service: makeOrders(join(folder, "run/service.probe")),
    guard: makeOrders(join(folder, "run/guard.probe")),
  };
  const site = await startStillpoint({ folder, env: { service: orders.service.env, guard: orders.guard.env } });
  try {
    const fixed = join(site.poolDir, "fixed.raw");
    await writeFile(fixed, randomBytes(FIXED_BYTES), { mode: 0o600 });
    site.own(fixed);
    const second = { bus: "virtio-blk", serial: "b", iothread: true };
    const machine = { machineType: "q35", firmware: "bios", disks: { [computeId("test", "disks", "vm1-b")]: second } };
    const vm = await createGuestVm(site, { extraImages: [fixed], machine });
    const collection = computeId("test", "restorePointCollections", "points");
    const body = { location: "local", properties: { source: { id: vm.id } } };
    await site.client.send("PUT", collection, { body, timeoutMs: SETTLED_MS });
    const guard = await connectGuard(guardSocketPath(site.dataDir));
    return hands({ site, vm, guard, orders, fixedDigest: await dataDigestOfFile(fixed), collection });
  } catch (error) {
    await site.stop();
    throw error;
  }
}

type Parts = Pick<FaultSite, "site" | "vm" | "guard" | "orders" | "fixedDigest"> & { readonly collection: string };

function hands(parts: Parts): FaultSite {
  const { site, vm, guard, collection } = parts;
  const pointId = (name: string) => `${collection}/restorePoints/${name}`;
  const point = async (name: string): Promise<PointFacts | null> => {
    try {
      const path = `${pointId(name)}/providers/Stillpoint.Capture/records/default`;
      return (await site.client.get<{ properties: PointFacts }>(path)).properties;
    } catch (error) {
      if (/NotFound/.test(String(error))) return null;
      throw error;
    }
  };
  return {
    ...parts,
    disks: vm.disks.length,
    pointId,
    point,
    ask: async (name, mode = "CrashConsistent") => {
      const body = { properties: mode === null ? {} : { consistencyMode: mode } };
      return site.client.send("PUT", pointId(name), { body, timeoutMs: SETTLED_MS }).then(
        () => null,
        (error: Error) => error,
      );
    },
    settled: (name) =>
      within(SETTLED_MS, `the point ${name} is neither Succeeded nor Failed`, async () => {
        const now = await point(name);
        return now && ["Succeeded", "Failed"].includes(now.provisioningState) ? now : null;
      }),
    remove: (name) =>
      site.client.send("DELETE", pointId(name), { timeoutMs: SETTLED_MS }).then(
        () => null,
        (error: Error) => error,
      ),
    facts: () => guard.call("vm.inspect", { vm: vm.vmUid as VmUid }),
    captures: () => guard.call("capture.list", {}),
    ended: async (name) =>
      void (await within(ENDED_MS, `the ${name} has not ended`, async () => site.pid(name) === null || null)),
    revive: async () => {
      if (site.pid("guard") === null) await site.start("guard");
      if (site.pid("service") === null) {
        await site.start("service");
        await site.ready();
      }
      await within(ENDED_MS, "the guard does not answer", () =>
        guard.call("vm.list", {}).then(
          () => true,
          () => null,
        ),
      );
    },
    stop: async () => {
      vm.console.close();
      await guard.close();
      await site.stop();
    },
  };
}
