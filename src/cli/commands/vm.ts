import type { Command } from "commander";
import type { Json } from "../client.ts";
import { confirm } from "../confirm.ts";
import { type CommonOptions, type Context, leaf, option, type Surroundings } from "../context.ts";
import { computePath, idOrName, subscriptionPath, versioned } from "../ids.ts";
import { type Column, groupOf, valueAt } from "../output.ts";
import { addMachineCommands } from "./machine.ts";
import { vmPath } from "./paths.ts";

function powerOf(item: Json): unknown {
  const statuses = valueAt(item, "properties.instanceView.statuses");
  if (!Array.isArray(statuses)) return undefined;
  return statuses.find((status: Json) => String(status["code"]).startsWith("PowerState/"))?.displayStatus;
}

const COLUMNS: readonly Column[] = [
  ["Name", "name"],
  ["ResourceGroup", groupOf],
  ["Location", "location"],
  ["Size", "properties.hardwareProfile.vmSize"],
  ["PowerState", powerOf],
  ["ProvisioningState", "properties.provisioningState"],
];

async function create(context: Context, options: CommonOptions): Promise<void> {
  const group = String(options["resourceGroup"]);
  const attach = (disk: unknown) => ({
    createOption: "Attach",
    managedDisk: { id: idOrName(String(disk), context.subscription, group, "disks") },
  });
  const dataDisks = (options["attachDataDisks"] ?? []) as readonly string[];
  const body = {
    location: await context.locationOr(group),
    tags: options["tags"] ?? {},
    properties: {
      hardwareProfile: { vmSize: options["size"] },
      storageProfile: {
        osDisk: { osType: options["osType"], ...attach(options["attachOsDisk"]) },
        dataDisks: dataDisks.map((disk, lun) => ({ lun, ...attach(disk) })),
      },
    },
  };
  context.print(
    await context.change("PUT", versioned(vmPath(context, options), "compute"), body, `vm ${options["name"]}`),
    COLUMNS,
  );
}

async function list({ client, print, subscription }: Context, options: CommonOptions): Promise<void> {
  const group = options["resourceGroup"];
  const path =
    group === undefined
      ? `${subscriptionPath(subscription)}/providers/Microsoft.Compute/virtualMachines`
      : computePath(subscription, String(group), "virtualMachines");
  print(await client.list(versioned(path, "compute", expand(options))), COLUMNS);
}

function expand(options: CommonOptions): Record<string, string> {
  return options["showDetails"] === true ? { $expand: "instanceView" } : {};
}

async function adopt(context: Context, options: CommonOptions): Promise<void> {
  const body = {
    location: await context.locationOr(String(options["resourceGroup"])),
    tags: options["tags"] ?? {},
    properties: { qmpSocket: options["qmp"], qgaSocket: options["qga"] },
  };
  const path = versioned(`${vmPath(context, options)}/providers/Stillpoint.Hypervisor/import`, "stillpoint");
  context.print(await context.change("POST", path, body, `import ${options["name"]}`), COLUMNS);
}

/** `stillpoint vm …` */
export function addVmCommands(program: Command, surroundings: Surroundings): void {
  const vm = program.command("vm").description("Virtual machines");
  const named = (command: Command) => command.addOption(option.group()).addOption(option.name("virtual machine"));
  const details = (command: Command) => command.option("-d, --show-details", "ask for power state and guest agent too");
  const power = (name: string, description: string, verb: string) =>
    leaf(
      vm,
      surroundings,
      name,
      description,
      (command) => {
        const built = named(command).addOption(option.noWait());
        return verb === "powerOff" ? built.option("--skip-shutdown", "do not ask the guest to shut down") : built;
      },
      async (context, options) => {
        const query: Record<string, string> = options["skipShutdown"] === true ? { skipShutdown: "true" } : {};
        await context.change(
          "POST",
          versioned(`${vmPath(context, options)}/${verb}`, "compute", query),
          undefined,
          `${name} ${options["name"]}`,
        );
      },
    );
  leaf(
    vm,
    surroundings,
    "create",
    "Create and start a VM from existing disks",
    (command) =>
      named(command)
        .requiredOption("--attach-os-disk <disk>", "name or id of the OS disk")
        .option("--attach-data-disks <disks...>", "names or ids of data disks, in the order of their LUNs")
        .addOption(option.osType().default("Linux"))
        .option("--size <size>", "size: one of those in the service's configuration", "Standard_B1s")
        .addOption(option.location())
        .addOption(option.tags())
        .addOption(option.noWait()),
    create,
  );
  leaf(vm, surroundings, "list", "List VMs", (command) => details(command.addOption(option.anyGroup())), list);
  leaf(
    vm,
    surroundings,
    "show",
    "Show a VM",
    (command) => details(named(command)),
    async (context, options) => {
      context.print(
        (await context.client.call("GET", versioned(vmPath(context, options), "compute", expand(options)))).body,
        COLUMNS,
      );
    },
  );
  power("start", "Start a VM", "start");
  power("stop", "Power a VM off", "powerOff");
  power("deallocate", "Power a VM off and end its process", "deallocate");
  leaf(
    vm,
    surroundings,
    "delete",
    "Delete a VM; its disks and restore points stay",
    (command) => named(command).addOption(option.noWait()).addOption(option.yes()),
    async (context, options) => {
      await confirm(context, options, `virtual machine ${options["name"]}`);
      await context.change(
        "DELETE",
        versioned(vmPath(context, options), "compute"),
        undefined,
        `delete ${options["name"]}`,
      );
    },
  );
  leaf(
    vm,
    surroundings,
    "import",
    "Adopt a running VM that another QEMU command line started",
    (command) =>
      named(command)
        .requiredOption("--qmp <socket>", "a QMP socket of its own for Stillpoint")
        .option("--qga <socket>", "socket of the guest agent's channel")
        .addOption(option.location())
        .addOption(option.tags())
        .addOption(option.noWait()),
    adopt,
  );
  leaf(
    vm,
    surroundings,
    "release",
    "Let an adopted VM go and take every trace away; its restore points stay",
    (command) => named(command).addOption(option.noWait()),
    async (context, options) => {
      const path = versioned(`${vmPath(context, options)}/providers/Stillpoint.Hypervisor/release`, "stillpoint");
      await context.change("POST", path, undefined, `release ${options["name"]}`);
    },
  );
  addMachineCommands(vm, surroundings, named);
}
