/** Restore points through the API: taking one, its record, and the VM back from it. */
import type { Clock } from "../../base/index.ts";
import type { ApiClient } from "./client.ts";
import { type Names, SLOW_TIMEOUT_MS, untilAgentAnswers } from "./machine.ts";
import { bar } from "./screen.ts";

/** The part of a point's record that the closing table shows. */
export interface PointRecord {
  readonly reachedMode: string;
  readonly stallMs: number;
  readonly timeToPointInTimeMs: number;
  readonly timeToDurableMs: number;
  readonly disks: readonly {
    readonly diskId: string;
    readonly method: string;
    readonly kind: string;
    readonly bytesRead: number;
    readonly newStoredBytes: number;
  }[];
}

export const pointId = (names: Names, name: string) => `${names.collection}/restorePoints/${name}`;

export async function createCollection(client: ApiClient, names: Names): Promise<void> {
  const body = { location: "local", properties: { source: { id: names.vm } } };
  await client.send("PUT", names.collection, { body, timeoutMs: SLOW_TIMEOUT_MS });
}

/** Takes a point and returns its record once it is durable. Without a mode the service chooses by what the guest can. */
export async function takePoint(
  client: ApiClient,
  names: Names,
  name: string,
  mode: "CrashConsistent" | null,
  progress: (text: string) => void,
): Promise<PointRecord> {
  const id = pointId(names, name);
  const body = { properties: mode ? { consistencyMode: mode } : {} };
  await client.send("PUT", id, { body, timeoutMs: SLOW_TIMEOUT_MS, progress: (percent) => progress(bar(percent)) });
  const { properties } = await client.get<{ properties: { record: PointRecord } }>(
    `${id}/providers/Stillpoint.Capture/records/default`,
  );
  return properties.record;
}

export interface Restored {
  /** Ids of the new disks in the order OS, b, c. */
  readonly disks: readonly string[];
  /** From the request until the agent of the restored VM answered. */
  readonly restoreMs: number;
}

/** A whole new VM from the point: disks, machine, start; until its guest agent answers. */
export async function restoreMachine(
  client: ApiClient,
  names: Names,
  point: string,
  clock: Clock,
  progress: (text: string) => void,
): Promise<Restored> {
  const startMs = clock.monotonicMs();
  const group = names.group.split("/").at(-1);
  const vmName = names.restoredVm.split("/").at(-1);
  const diskNames = Object.fromEntries(names.disks.map(({ id }) => [id, `${id.split("/").at(-1)}-restored`]));
  await client.send("POST", `${pointId(names, point)}/providers/Stillpoint.Restore/restores`, {
    body: { properties: { targetResourceGroup: group, vmName, diskNames, start: true } },
    timeoutMs: SLOW_TIMEOUT_MS,
    progress: (percent) => progress(bar(percent)),
  });
  progress("booting");
  await untilAgentAnswers(client, names.restoredVm, clock);
  const disks = names.disks.map(({ id }) => `${id}-restored`);
  return { disks, restoreMs: clock.monotonicMs() - startMs };
}
