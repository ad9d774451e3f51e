import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import type { Command } from "commander";
import { type CommonOptions, type Context, leaf, type Surroundings } from "../context.ts";
import { CliFailure } from "../failure.ts";
import { versioned } from "../ids.ts";
import type { Column } from "../output.ts";
import { vmPath } from "./paths.ts";

const COLUMNS: readonly Column[] = [
  ["MachineType", "properties.machineType"],
  ["Cpu", "properties.cpuModel"],
  ["Firmware", "properties.firmware"],
  ["Disks", (item) => Object.keys((item["properties"] as { disks?: object } | undefined)?.disks ?? {}).length],
  ["Nics", (item) => ((item["properties"] as { nics?: unknown[] } | undefined)?.nics ?? []).length],
];

const path = (context: Context, options: CommonOptions) =>
  versioned(`${vmPath(context, options)}/providers/Stillpoint.Hypervisor/machines/default`, "stillpoint");

async function set(context: Context, options: CommonOptions): Promise<void> {
  const file = String(options["file"]);
  const content = file === "-" ? await text(context.surroundings.stdin) : read(file);
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch (error) {
    throw new CliFailure(2, `${file} is not JSON: ${(error as Error).message}`);
  }
  // What `machine show` printed may be edited and given back as it is.
  const body = value !== null && typeof value === "object" && "properties" in value ? value : { properties: value };
  context.print((await context.client.call("PUT", path(context, options), body)).body, COLUMNS);
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new CliFailure(2, `Cannot read ${file}: ${(error as Error).message}.`);
  }
}

/** `stillpoint vm machine …`: what Azure's shape of a VM cannot say. */
export function addMachineCommands(
  vm: Command,
  surroundings: Surroundings,
  named: (command: Command) => Command,
): void {
  const machine = vm.command("machine").description("Machine type, firmware, buses and network cards of a VM");
  leaf(machine, surroundings, "show", "Show the machine of a VM", named, async (context, options) => {
    context.print((await context.client.call("GET", path(context, options))).body, COLUMNS);
  });
  leaf(
    machine,
    surroundings,
    "set",
    "Set the machine of a VM that is deallocated or not created yet",
    (command) =>
      named(command).requiredOption(
        "--file <file>",
        "JSON as `machine show` prints it, or its properties; - reads standard input",
      ),
    set,
  );
}
