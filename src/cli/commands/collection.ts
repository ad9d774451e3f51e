import type { Command } from "commander";
import { confirm } from "../confirm.ts";
import { type CommonOptions, type Context, leaf, option, type Surroundings } from "../context.ts";
import { computePath, idOrName, subscriptionPath, versioned } from "../ids.ts";
import { type Column, groupOf, nameIn, valueAt } from "../output.ts";

const COLUMNS: readonly Column[] = [
  ["Name", "name"],
  ["ResourceGroup", groupOf],
  ["Location", "location"],
  ["Source", (item) => nameIn(valueAt(item, "properties.source.id"))],
  ["ProvisioningState", "properties.provisioningState"],
];

function path({ subscription }: Context, options: CommonOptions, query: Record<string, string> = {}): string {
  return versioned(
    computePath(
      subscription,
      String(options["resourceGroup"]),
      "restorePointCollections",
      String(options["collectionName"]),
    ),
    "compute",
    query,
  );
}

async function create(context: Context, options: CommonOptions): Promise<void> {
  const group = String(options["resourceGroup"]);
  const id = idOrName(String(options["sourceId"]), context.subscription, group, "virtualMachines");
  const body = {
    location: await context.locationOr(group),
    tags: options["tags"] ?? {},
    properties: { source: { id } },
  };
  context.print(await context.change("PUT", path(context, options), body, "collection"), COLUMNS);
}

/** `stillpoint restore-point collection …` */
export function addCollectionCommands(restorePoint: Command, surroundings: Surroundings): void {
  const collection = restorePoint.command("collection").description("Collections: the restore points of one VM");
  const named = (command: Command) => command.addOption(option.group()).addOption(option.collection());
  leaf(
    collection,
    surroundings,
    "create",
    "Create a collection for a VM",
    (command) =>
      named(command)
        .requiredOption("--source-id <vm>", "id of the VM, or its name in the same resource group")
        .addOption(option.location())
        .addOption(option.tags()),
    create,
  );
  leaf(
    collection,
    surroundings,
    "list",
    "List collections",
    (command) => command.addOption(option.anyGroup()),
    async ({ client, print, subscription }, options) => {
      const group = options["resourceGroup"];
      const list =
        group === undefined
          ? `${subscriptionPath(subscription)}/providers/Microsoft.Compute/restorePointCollections`
          : computePath(subscription, String(group), "restorePointCollections");
      print(await client.list(versioned(list, "compute")), COLUMNS);
    },
  );
  leaf(
    collection,
    surroundings,
    "show",
    "Show a collection",
    (command) => named(command).option("--restore-points", "with its restore points"),
    async (context, options) => {
      const query: Record<string, string> = options["restorePoints"] === true ? { $expand: "restorePoints" } : {};
      context.print((await context.client.call("GET", path(context, options, query))).body, COLUMNS);
    },
  );
  leaf(
    collection,
    surroundings,
    "update",
    "Change a collection's tags",
    (command) => named(command).addOption(option.tags().makeOptionMandatory()),
    async (context, options) => {
      context.print(
        (await context.client.call("PATCH", path(context, options), { tags: options["tags"] })).body,
        COLUMNS,
      );
    },
  );
  leaf(
    collection,
    surroundings,
    "delete",
    "Delete a collection with all its restore points",
    (command) => named(command).addOption(option.noWait()).addOption(option.yes()),
    async (context, options) => {
      await confirm(context, options, `collection ${options["collectionName"]} with all its restore points`);
      await context.change("DELETE", path(context, options), undefined, `delete ${options["collectionName"]}`);
    },
  );
}
