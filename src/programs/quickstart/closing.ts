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
  const row = (title: string, cell: (point: WalkResult["points"][number]) => string) => [
    title,
    ...result.points.map(cell),
  ];
  const rows = [
    row("", ({ name }) => name),
    row("consistency reached", ({ record }) => record.reachedMode),
    row("disks read", ({ record }) => kinds(record.disks.map((disk) => disk.kind))),
    row("stall of the guest", ({ record }) => `${Math.round(record.stallMs)} ms`),
    row("bytes read", ({ name }) => sized(sum(name, "bytesRead"))),
    row("new bytes stored", ({ name }) => sized(sum(name, "newStoredBytes"))),
    row("time to the point in time", ({ record }) => seconds(record.timeToPointInTimeMs)),
    row("time to durable", ({ record }) => seconds(record.timeToDurableMs)),
    row("restore until the agent answered", ({ name }) =>
      name === result.restoredFrom ? seconds(result.restoreMs) : "not restored",
    ),
  ];
  const group = names.group.split("/").at(-1);
  const at = `-g ${group} --collection-name ${names.collection.split("/").at(-1)}`;
  return [
    "",
    ...table(rows),
    "",
    "The full record of a point (how each disk was read, and why):",
    `  GET ${pointId(names, result.restoredFrom)}/providers/Stillpoint.Capture/records/default`,
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
