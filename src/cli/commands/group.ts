import type { Command } from "commander";
import { confirm } from "../confirm.ts";
import { leaf, option, type Surroundings } from "../context.ts";
import { groupPath, subscriptionPath, versioned } from "../ids.ts";
import type { Column } from "../output.ts";

const COLUMNS: readonly Column[] = [
  ["Name", "name"],
  ["Location", "location"],
  ["Status", "properties.provisioningState"],
];

/** `stillpoint group …` */
export function addGroupCommands(program: Command, surroundings: Surroundings): void {
  const group = program.command("group").description("Resource groups");
  const named = (command: Command) =>
    command
      .addOption(option.name("resource group").makeOptionMandatory(false))
      .option("-g, --resource-group <name>", "the same as --name");
  const nameOf = (options: Readonly<Record<string, unknown>>) =>
    String(options["name"] ?? options["resourceGroup"] ?? "");
  leaf(
    group,
    surroundings,
    "create",
    "Create a resource group, or change its tags",
    (command) => named(command).addOption(option.location().makeOptionMandatory()).addOption(option.tags()),
    async ({ change, print, subscription }, options) => {
      const path = versioned(groupPath(subscription, nameOf(options)), "resources");
      print(await change("PUT", path, { location: options["location"], tags: options["tags"] }, "group"), COLUMNS);
    },
  );
  leaf(
    group,
    surroundings,
    "list",
    "List resource groups",
    (command) => command,
    async ({ client, print, subscription }) => {
      print(await client.list(versioned(`${subscriptionPath(subscription)}/resourceGroups`, "resources")), COLUMNS);
    },
  );
  leaf(
    group,
    surroundings,
    "show",
    "Show a resource group",
    named,
    async ({ client, print, subscription }, options) => {
      print((await client.call("GET", versioned(groupPath(subscription, nameOf(options)), "resources"))).body, COLUMNS);
    },
  );
  leaf(
    group,
    surroundings,
    "delete",
    "Delete a resource group and everything in it",
    (command) => named(command).addOption(option.noWait()).addOption(option.yes()),
    async (context, options) => {
      await confirm(context, options, `resource group ${nameOf(options)} and everything in it`);
      await context.change(
        "DELETE",
        versioned(groupPath(context.subscription, nameOf(options)), "resources"),
        undefined,
        `delete ${nameOf(options)}`,
      );
    },
  );
}
