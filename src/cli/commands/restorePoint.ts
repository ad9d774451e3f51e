import { type Command, Option } from "commander";
import type { Json } from "../client.ts";
import { confirm } from "../confirm.ts";
import { type CommonOptions, type Context, leaf, option, type Surroundings } from "../context.ts";
import { ApiFailure, CliFailure } from "../failure.ts";
import { computePath, idOrName, versioned } from "../ids.ts";
import { type Column, valueAt } from "../output.ts";
import { createProgress } from "../progress.ts";
import { addCollectionCommands } from "./collection.ts";
import { pointPath } from "./paths.ts";

const MODES = ["CrashConsistent", "FileSystemConsistent", "ApplicationConsistent"];

const COLUMNS: readonly Column[] = [
  ["Name", "name"],
  ["TimeCreated", "properties.timeCreated"],
  ["ConsistencyMode", "properties.consistencyMode"],
  ["ProvisioningState", "properties.provisioningState"],
];

const RECORD_COLUMNS: readonly Column[] = [
  ["State", "properties.provisioningState"],
  ["Reached", "properties.record.reachedMode"],
  ["TakenAt", "properties.takenAt"],
  ["StallMs", (item) => rounded(valueAt(item, "properties.record.stallMs"))],
  ["BytesRead", (item) => sum(item, "bytesRead")],
  ["NewStoredBytes", (item) => sum(item, "newStoredBytes")],
  ["TimeToDurableMs", "properties.record.timeToDurableMs"],
];

function rounded(value: unknown): unknown {
  return typeof value === "number" ? value.toFixed(1) : value;
}

function sum(item: Json, member: string): unknown {
  const disks = valueAt(item, "properties.record.disks");
  return Array.isArray(disks) ? disks.reduce((total, disk) => total + Number(disk[member] ?? 0), 0) : undefined;
}

function pathOf(context: Context, options: CommonOptions): string {
  return pointPath(
    context,
    String(options["resourceGroup"]),
    String(options["collectionName"]),
    String(options["name"]),
  );
}

async function create(context: Context, options: CommonOptions): Promise<void> {
  const group = String(options["resourceGroup"]);
  const excluded = (options["excludeDisks"] ?? []) as readonly string[];
  const properties = {
    ...(excluded.length === 0
      ? {}
      : { excludeDisks: excluded.map((disk) => ({ id: idOrName(disk, context.subscription, group, "disks") })) }),
    ...(options["consistencyMode"] === undefined ? {} : { consistencyMode: options["consistencyMode"] }),
  };
  const body = Object.keys(properties).length === 0 ? {} : { properties };
  context.print(
    await context.change(
      "PUT",
      versioned(pathOf(context, options), "compute"),
      body,
      `restore point ${options["name"]}`,
    ),
    COLUMNS,
  );
}

async function list({ client, print, subscription }: Context, options: CommonOptions): Promise<void> {
  const path = computePath(
    subscription,
    String(options["resourceGroup"]),
    "restorePointCollections",
    String(options["collectionName"]),
  );
  const { body } = await client.call("GET", versioned(path, "compute", { $expand: "restorePoints" }));
  print(valueAt(body, "properties.restorePoints"), COLUMNS);
}

/** Waits until the point has succeeded, or is gone. A failed point ends the wait with its reason. */
async function wait(context: Context, options: CommonOptions): Promise<void> {
  const { clock, stderr } = context.surroundings;
  const deadlineMs = clock.monotonicMs() + Number(options["timeout"]) * 1000;
  const progress = createProgress(stderr, `restore point ${options["name"]}`);
  try {
    for (;;) {
      const record = await recordOrNull(context, options);
      if (options["deleted"] === true ? record === null : reached(record, options)) return;
      const percent = valueAt(record, "properties.percent");
      if (typeof percent === "number") progress.update(percent);
      if (clock.monotonicMs() >= deadlineMs)
        throw new CliFailure(1, `The wait ended after ${options["timeout"]} s; the operation goes on.`);
      await clock.sleep(Number(options["interval"]) * 1000);
    }
  } finally {
    progress.end();
  }
}

async function recordOrNull(context: Context, options: CommonOptions): Promise<Json | null> {
  try {
    return (await context.client.poll(recordPath(context, options))).body ?? null;
  } catch (error) {
    if (error instanceof ApiFailure && error.status === 404 && options["deleted"] === true) return null;
    throw error;
  }
}

function reached(record: Json | null, options: CommonOptions): boolean {
  const state = valueAt(record, "properties.provisioningState");
  if (state === "Succeeded") return true;
  if (state === "Failed") {
    const { code, message } = (valueAt(record, "properties.error") ?? {}) as { code?: string; message?: string };
    throw new CliFailure(1, `(${code ?? "Failed"}) ${message ?? "The restore point failed."}`);
  }
  if (state === "Deleting") throw new CliFailure(1, `The restore point ${options["name"]} is being deleted.`);
  return false;
}

function recordPath(context: Context, options: CommonOptions): string {
  return versioned(`${pathOf(context, options)}/providers/Stillpoint.Capture/records/default`, "stillpoint");
}

/** `stillpoint restore-point …` */
export function addRestorePointCommands(program: Command, surroundings: Surroundings): void {
  const point = program.command("restore-point").description("Restore points");
  const named = (command: Command) =>
    command.addOption(option.group()).addOption(option.collection()).addOption(option.name("restore point"));
  addCollectionCommands(point, surroundings);
  leaf(
    point,
    surroundings,
    "create",
    "Take a restore point of the collection's VM",
    (command) =>
      named(command)
        .option("--exclude-disks <disks...>", "names or ids of disks to leave out")
        .addOption(new Option("--consistency-mode <mode>", "the consistency it must have").choices(MODES))
        .addOption(option.noWait()),
    create,
  );
  leaf(
    point,
    surroundings,
    "list",
    "List the restore points of a collection",
    (command) => command.addOption(option.group()).addOption(option.collection()),
    list,
  );
  leaf(
    point,
    surroundings,
    "show",
    "Show a restore point",
    (command) => named(command).option("--instance-view", "with its instance view"),
    async (context, options) => {
      const query: Record<string, string> = options["instanceView"] === true ? { $expand: "instanceView" } : {};
      context.print(
        (await context.client.call("GET", versioned(pathOf(context, options), "compute", query))).body,
        COLUMNS,
      );
    },
  );
  leaf(
    point,
    surroundings,
    "delete",
    "Delete a restore point",
    (command) => named(command).addOption(option.noWait()).addOption(option.yes()),
    async (context, options) => {
      await confirm(context, options, `restore point ${options["name"]}`);
      await context.change(
        "DELETE",
        versioned(pathOf(context, options), "compute"),
        undefined,
        `delete ${options["name"]}`,
      );
    },
  );
  leaf(
    point,
    surroundings,
    "wait",
    "Wait until a restore point has succeeded, or is deleted",
    (command) =>
      named(command)
        .option("--created", "wait until it has succeeded (the default)")
        .option("--deleted", "wait until it is gone")
        .addOption(option.integer("--interval <seconds>", "seconds between looks").default(2))
        .addOption(option.integer("--timeout <seconds>", "longest wait").default(3600)),
    wait,
  );
  leaf(
    point,
    surroundings,
    "abandon",
    "Give up a restore point that is being created; one that has succeeded stays",
    (command) => named(command).addOption(option.noWait()),
    async (context, options) => {
      const path = versioned(`${pathOf(context, options)}/providers/Stillpoint.Capture/abandon`, "stillpoint");
      await context.change("POST", path, undefined, `abandon ${options["name"]}`);
    },
  );
  leaf(
    point,
    surroundings,
    "record",
    "Show the record of a restore point: what was reached, how, and what it cost",
    named,
    async (context, options) => {
      context.print((await context.client.call("GET", recordPath(context, options))).body, RECORD_COLUMNS);
    },
  );
}
