import { type Command, Option } from "commander";
import { confirm } from "../confirm.ts";
import { type CommonOptions, type Context, leaf, option, type Surroundings } from "../context.ts";
import { CliFailure } from "../failure.ts";
import { computePath, subscriptionPath, versioned } from "../ids.ts";
import { type Column, groupOf } from "../output.ts";

const COLUMNS: readonly Column[] = [
  ["Name", "name"],
  ["ResourceGroup", groupOf],
  ["Location", "location"],
  ["Sku", "sku.name"],
  ["OsType", "properties.osType"],
  ["SizeGb", "properties.diskSizeGB"],
  ["DiskState", "properties.diskState"],
  ["ProvisioningState", "properties.provisioningState"],
];

function path({ subscription }: Context, options: CommonOptions): string {
  return versioned(
    computePath(subscription, String(options["resourceGroup"]), "disks", String(options["name"])),
    "disk",
  );
}

/** What `--source` means, told from its form as `az` does it. */
function creationData(source: unknown): object {
  if (source === undefined) return { createOption: "Empty" };
  const text = String(source);
  if (text.startsWith("pool://")) return { createOption: "Import", sourceUri: text };
  if (/\/diskRestorePoints\//i.test(text)) return { createOption: "Restore", sourceResourceId: text };
  throw new CliFailure(
    2,
    `--source '${text}' is neither the id of a disk restore point nor pool://{host}/{pool}/{path}.`,
  );
}

async function create(context: Context, options: CommonOptions): Promise<void> {
  const body = {
    location: await context.locationOr(String(options["resourceGroup"])),
    tags: options["tags"] ?? {},
    ...(options["sku"] === undefined ? {} : { sku: { name: options["sku"] } }),
    properties: {
      creationData: creationData(options["source"]),
      diskSizeGB: options["sizeGb"],
      osType: options["osType"],
      hyperVGeneration: options["hyperVGeneration"],
    },
  };
  context.print(await context.change("PUT", path(context, options), body, `disk ${options["name"]}`), COLUMNS);
}

async function update(context: Context, options: CommonOptions): Promise<void> {
  const body = {
    ...(options["tags"] === undefined ? {} : { tags: options["tags"] }),
    ...(options["sizeGb"] === undefined ? {} : { properties: { diskSizeGB: options["sizeGb"] } }),
  };
  context.print(await context.change("PATCH", path(context, options), body, `disk ${options["name"]}`), COLUMNS);
}

/** `stillpoint disk …` */
export function addDiskCommands(program: Command, surroundings: Surroundings): void {
  const disk = program.command("disk").description("Managed disks");
  const named = (command: Command) => command.addOption(option.group()).addOption(option.name("disk"));
  leaf(
    disk,
    surroundings,
    "create",
    "Create an empty disk, import a file of a pool, or restore a disk restore point",
    (command) =>
      named(command)
        .addOption(option.integer("-z, --size-gb <n>", "size in GiB"))
        .option(
          "--source <source>",
          "id of a disk restore point, or pool://{host}/{pool}/{path} to import that file in place",
        )
        .option("--sku <name>", "sku; decides pool and format")
        .addOption(option.osType())
        .addOption(new Option("--hyper-v-generation <generation>", "V1 (BIOS) or V2 (UEFI)").choices(["V1", "V2"]))
        .addOption(option.location())
        .addOption(option.tags())
        .addOption(option.noWait()),
    create,
  );
  leaf(
    disk,
    surroundings,
    "list",
    "List disks",
    (command) => command.addOption(option.anyGroup()),
    async ({ client, print, subscription }, options) => {
      const group = options["resourceGroup"];
      const list =
        group === undefined
          ? `${subscriptionPath(subscription)}/providers/Microsoft.Compute/disks`
          : computePath(subscription, String(group), "disks");
      print(await client.list(versioned(list, "disk")), COLUMNS);
    },
  );
  leaf(disk, surroundings, "show", "Show a disk", named, async (context, options) => {
    context.print((await context.client.call("GET", path(context, options))).body, COLUMNS);
  });
  leaf(
    disk,
    surroundings,
    "update",
    "Grow a disk, or change its tags",
    (command) =>
      named(command)
        .addOption(option.integer("-z, --size-gb <n>", "new size in GiB; a disk cannot shrink"))
        .addOption(option.tags())
        .addOption(option.noWait()),
    update,
  );
  leaf(
    disk,
    surroundings,
    "delete",
    "Delete a disk; an imported disk's file stays",
    (command) => named(command).addOption(option.noWait()).addOption(option.yes()),
    async (context, options) => {
      await confirm(context, options, `disk ${options["name"]}`);
      await context.change("DELETE", path(context, options), undefined, `delete ${options["name"]}`);
    },
  );
}
