/** What the quickstart says in the end: the figures of this run, and how to go on. */
import { join } from "node:path";
import { pointId } from "./points.ts";
import { sized, table } from "./screen.ts";
import type { QuickstartSite } from "./site.ts";
import type { WalkResult } from "./walk.ts";

export function closing(site: QuickstartSite, result: WalkResult, command: string): readonly string[] {
  const { names } = result;
  const sum = (name: string, member: "bytesRead" | "newStoredBytes") =>
    (result.points.find((point) => point.name === name)?.record.disks ?? []).reduce(
      (total, disk) => total + disk[member],
      0,
    );
  const rows = [
    [
      "point",
      "consistency",
      "disks read",
      "guest stall",
      "bytes read",
      "newly stored",
      "to point in time",
      "to durable",
      "restore until agent answers",
    ],
    ...result.points.map(({ name, record }) => [
      name,
      record.reachedMode,
      kinds(record.disks.map((disk) => disk.kind)),
      `${Math.round(record.stallMs)} ms`,
      sized(sum(name, "bytesRead")),
      sized(sum(name, "newStoredBytes")),
      seconds(record.timeToPointInTimeMs),
      seconds(record.timeToDurableMs),
      name === result.restoredFrom ? seconds(result.restoreMs) : "",
    ]),
  ];
  const group = names.group.split("/").at(-1);
  const at = `-g ${group} --collection-name ${names.collection.split("/").at(-1)}`;
  return [
    "",
    ...table(rows),
    "",
    "The full record of a point (how each disk was read, and why):",
    ...result.points.map(({ name }) => `  GET ${pointId(names, name)}/providers/Stillpoint.Capture/records/default`),
    "",
    "Guard and service go on running; the restored VM is switched off, its points stay. To go on:",
    `  export STILLPOINT_DATA_DIR=${site.dataDir}`,
    `  ${command} restore-point list ${at} -o table`,
    `  ${command} vm start -g ${group} -n ${names.restoredVm.split("/").at(-1)}`,
    `Configuration: ${site.config}    Logs: ${site.runDir}`,
    `Copy the key to a safe place, points cannot be read without it: ${join(site.root, "keys/repository.key")}`,
    `To stop guard and service: kill $(cat ${join(site.runDir, "service.pid")} ${join(site.runDir, "guard.pid")})`,
    "",
  ];
}

function kinds(list: readonly string[]): string {
  return [...new Set(list)].map((kind) => `${list.filter((one) => one === kind).length} ${kind}`).join(", ");
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
