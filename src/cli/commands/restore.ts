import type { Command } from "commander";
import type { Json } from "../client.ts";
import { type CommonOptions, type Context, leaf, option, type Surroundings } from "../context.ts";
import { CliFailure } from "../failure.ts";
import { versioned } from "../ids.ts";
import { type Column, nameIn, valueAt } from "../output.ts";
import { pointPath } from "./paths.ts";

const COLUMNS: readonly Column[] = [
  ["VirtualMachine", (item) => nameIn(valueAt(item, "virtualMachine.id"))],
  ["Disks", (item) => (item["disks"] as { id: string }[] | undefined)?.map((disk) => nameIn(disk.id)).join(" ")],
  ["NotRestored", (item) => (item["notRestored"] as string[] | undefined)?.join(", ")],
];

interface PointDisk {
  readonly diskId: string;
  readonly name: string;
  readonly diskRestorePointId: string;
}

const pathOf = (context: Context, options: CommonOptions) =>
  pointPath(
    context,
    String(options["resourceGroup"]),
    String(options["collectionName"]),
    String(options["restorePoint"]),
  );

/** The disks of the point, for naming them by their short names. */
async function pointDisks(context: Context, options: CommonOptions): Promise<PointDisk[]> {
  const { body } = await context.client.call("GET", versioned(pathOf(context, options), "compute"));
  const profile = valueAt(body, "properties.sourceMetadata.storageProfile");
  const all = [valueAt(profile, "osDisk"), ...((valueAt(profile, "dataDisks") as unknown[] | undefined) ?? [])];
  return (all.filter((disk) => valueAt(disk, "diskRestorePoint.id") !== undefined) as Json[]).map((disk) => ({
    diskId: String(valueAt(disk, "managedDisk.id")),
    name: String(disk["name"]),
    diskRestorePointId: String(valueAt(disk, "diskRestorePoint.id")),
  }));
}

function find(disks: readonly PointDisk[], wanted: string): PointDisk {
  const key = wanted.toLowerCase();
  const found = disks.find((disk) =>
    [disk.diskId, disk.name, disk.diskRestorePointId].some((one) => one.toLowerCase() === key),
  );
  if (found) return found;
  throw new CliFailure(
    3,
    `The restore point has no disk '${wanted}'. It has ${disks.map((disk) => disk.name).join(", ") || "none that can be restored yet"}.`,
  );
}

async function start(context: Context, options: CommonOptions, properties: object): Promise<void> {
  const path = versioned(`${pathOf(context, options)}/providers/Stillpoint.Restore/restores`, "stillpoint");
  const targetResourceGroup = options["targetResourceGroup"] ?? options["resourceGroup"];
  context.print(
    await context.change(
      "POST",
      path,
      { properties: { targetResourceGroup, ...properties } },
      `restore from ${options["restorePoint"]}`,
    ),
    COLUMNS,
  );
}

async function restoreVm(context: Context, options: CommonOptions): Promise<void> {
  const renames = (options["diskNames"] ?? []) as readonly string[];
  const disks = renames.length === 0 ? [] : await pointDisks(context, options);
  const diskNames = Object.fromEntries(
    renames.map((rename) => {
      const at = rename.lastIndexOf("=");
      if (at <= 0) throw new CliFailure(2, `--disk-names '${rename}' is not of the form {source disk}={new name}.`);
      return [find(disks, rename.slice(0, at)).diskId, rename.slice(at + 1)];
    }),
  );
  await start(context, options, {
    vmName: options["name"],
    diskNames,
    start: options["start"] === true,
    keepIdentity: options["keepIdentity"] === true,
  });
}

async function restoreDisk(context: Context, options: CommonOptions): Promise<void> {
  const disk = find(await pointDisks(context, options), String(options["disk"]));
  const name = options["name"];
  await start(context, options, {
    diskRestorePoints: [{ id: disk.diskRestorePointId }],
    ...(name === undefined ? {} : { diskNames: { [disk.diskId]: name } }),
  });
}

/** `stillpoint restore …` */
export function addRestoreCommands(program: Command, surroundings: Surroundings): void {
  const restore = program.command("restore").description("Bring disks, or a whole VM, back from a restore point");
  const from = (command: Command) =>
    command
      .addOption(option.group())
      .addOption(option.collection())
      .requiredOption("--restore-point <name>", "the restore point")
      .option("--target-resource-group <name>", "resource group of what is made; the collection's when left out")
      .addOption(option.noWait());
  leaf(
    restore,
    surroundings,
    "vm",
    "Make a new VM with new disks",
    (command) =>
      from(command)
        .requiredOption("-n, --name <name>", "name of the new VM")
        .option("--disk-names <source=name...>", "names of the new disks; {vm name}-{8 characters} when left out")
        .option("--start", "start it when it is there")
        .option(
          "--keep-identity",
          "same MAC addresses, serials and machine identity; refused while the source VM runs",
        ),
    restoreVm,
  );
  leaf(
    restore,
    surroundings,
    "disk",
    "Make a new disk from one disk of the point",
    (command) =>
      from(command)
        .requiredOption("--disk <disk>", "the source disk's name or id")
        .option("-n, --name <name>", "name of the new disk"),
    restoreDisk,
  );
}
