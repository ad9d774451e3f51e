import type { Readable, Writable } from "node:stream";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { Clock } from "../base/index.ts";
import { type Client, createClient, type Json } from "./client.ts";
import { groupPath, versioned } from "./ids.ts";
import { type Column, type Format, render, valueAt } from "./output.ts";
import { createProgress } from "./progress.ts";
import { type ConnectionFlags, connectionOf, DEFAULT_SUBSCRIPTION, type Environment } from "./settings.ts";

/** The world around the program, so that a test can be it. */
export interface Surroundings {
  readonly env: Environment;
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable & { readonly isTTY?: boolean };
  readonly clock: Clock;
}

/** Values of the options that every command has. */
export interface CommonOptions extends ConnectionFlags {
  readonly subscription?: string | undefined;
  readonly output: Format;
  readonly [option: string]: unknown;
}

/** What a command works with. */
export interface Context {
  readonly client: Client;
  readonly subscription: string;
  readonly surroundings: Surroundings;
  print(value: unknown, columns: readonly Column[]): void;
  /** A change with its progress on the terminal. */
  change(method: string, path: string, body: unknown, label: string): Promise<Json | undefined>;
  /** `--location`, or the group's, as `az` does it. */
  locationOr(group: string): Promise<string>;
}

/** A command's work. `options` are the flags, `rest` nothing: names are flags as in `az`. */
export type Action = (context: Context, options: CommonOptions) => Promise<void>;

/** Adds a command with the common options below `parent`; `build` adds its own. */
export function leaf(
  parent: Command,
  surroundings: Surroundings,
  name: string,
  description: string,
  build: (command: Command) => Command,
  action: Action,
): void {
  const command = build(parent.command(name).description(description))
    .option("--subscription <id>", `subscription id (env STILLPOINT_SUBSCRIPTION; ${DEFAULT_SUBSCRIPTION})`)
    .addOption(new Option("-o, --output <format>", "output format").choices(["json", "table"]).default("json"))
    .option(
      "--data-dir <folder>",
      "the service's data folder with client.json (env STILLPOINT_DATA_DIR; /var/lib/stillpoint)",
    )
    .option("--url <url>", "address of the service (env STILLPOINT_URL)")
    .option("--token-file <file>", "file with the bearer token (env STILLPOINT_TOKEN_FILE)")
    .option("--ca-file <file>", "certificate to trust (env STILLPOINT_CA_FILE)");
  command.action(async () => {
    const options = command.opts<CommonOptions>();
    const client = createClient(connectionOf(options, surroundings.env), surroundings.clock);
    try {
      await action(contextOf(client, options, surroundings), options);
    } finally {
      client.close();
    }
  });
}

function contextOf(client: Client, options: CommonOptions, surroundings: Surroundings): Context {
  const subscription = options.subscription ?? surroundings.env["STILLPOINT_SUBSCRIPTION"] ?? DEFAULT_SUBSCRIPTION;
  return {
    client,
    subscription,
    surroundings,
    print: (value, columns) => surroundings.stdout.write(render(value, options.output, columns)),
    change: async (method, path, body, label) => {
      const progress = createProgress(surroundings.stderr, label);
      try {
        return await client.change(method, path, body, { wait: options["wait"] !== false, progress: progress.update });
      } finally {
        progress.end();
      }
    },
    locationOr: async (group) => {
      if (typeof options["location"] === "string") return options["location"];
      const { body } = await client.call("GET", versioned(groupPath(subscription, group), "resources"));
      return String(valueAt(body, "location"));
    },
  };
}

/** Options that several commands share, in `az`'s spelling. */
export const option = {
  group: () => new Option("-g, --resource-group <name>", "resource group").makeOptionMandatory(),
  anyGroup: () => new Option("-g, --resource-group <name>", "resource group; all groups when left out"),
  name: (what: string) => new Option("-n, --name <name>", `name of the ${what}`).makeOptionMandatory(),
  collection: () => new Option("--collection-name <name>", "restore point collection").makeOptionMandatory(),
  location: () => new Option("-l, --location <location>", "location; the resource group's when left out"),
  tags: () =>
    new Option("--tags <name=value...>", "tags, separated by spaces; --tags '' takes all away").argParser(parseTags),
  noWait: () => new Option("--no-wait", "do not wait for the operation to end"),
  yes: () => new Option("-y, --yes", "do not ask"),
  osType: () =>
    new Option("--os-type <type>", "operating system on the disk").choices(["Linux", "Windows"]).argParser(parseOsType),
  integer: (flags: string, description: string) => new Option(flags, description).argParser(parseInteger),
} as const;

function parseTags(text: string, previous: Readonly<Record<string, string>> | undefined): Record<string, string> {
  if (text === "") return { ...previous };
  const at = text.indexOf("=");
  return { ...previous, ...(at < 0 ? { [text]: "" } : { [text.slice(0, at)]: text.slice(at + 1) }) };
}

function parseOsType(text: string): string {
  const found = ["Linux", "Windows"].find((type) => type.toLowerCase() === text.toLowerCase());
  if (found === undefined) throw new InvalidArgumentError("Allowed choices are Linux, Windows.");
  return found;
}

function parseInteger(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError("A whole number is needed.");
  return Number(text);
}
