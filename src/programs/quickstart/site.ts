/** Where the quickstart keeps things, and the configuration it writes. */
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { type Clock, StillpointError } from "../../base/index.ts";
import type { ApiClient } from "./client.ts";
import { findDaemon, type Site, startDaemon, stopDaemon, waitUntilReady } from "./daemons.ts";

export interface QuickstartSite extends Site {
  readonly root: string;
  readonly poolDir: string;
}

/** Prepares the folders below `root` and the configuration in it. Throws when this user cannot write there. */
export async function prepareSite(root: string, program: string): Promise<QuickstartSite> {
  const at = (name: string) => join(root, name);
  const folders = ["data", "pool", "capture", "repository", "keys", "run"];
  try {
    for (const name of folders) await mkdir(at(name), { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new StillpointError("InvalidParameter", `${root} cannot be written: ${(cause as Error).message}.`, {
      remedy: `As root, run: install -d -o stillpoint -g stillpoint -m 0700 ${root}`,
      cause,
    });
  }
  const config = at("config.yaml");
  await writeFile(config, configuration(root), { mode: 0o600 });
  return { root, program, config, dataDir: at("data"), runDir: at("run"), poolDir: at("pool") };
}

function configuration(root: string): string {
  const comment = "# Written by the quickstart at each run; every option is explained in docs/operations.md.\n";
  return (
    comment +
    stringify({
      region: "local",
      dataDir: join(root, "data"),
      // any free port: client.json in the data folder tells which
      listen: { host: "127.0.0.1", port: 0 },
      repository: { path: join(root, "repository"), keyFile: join(root, "keys/repository.key") },
      host: {
        name: "host1",
        captureDir: join(root, "capture"),
        pools: [{ name: "main", path: join(root, "pool") }],
      },
      sizes: { Standard_B1ls: { vcpus: 1, memoryMiB: 512 } },
    })
  );
}

/**
 * Guard and service of the site, running and ready. Those of an earlier run go on, unless the program has changed since:
 * then both are started anew (the VMs of a stopped guard run on).
 */
export async function startSite(site: QuickstartSite, clock: Clock): Promise<ApiClient> {
  const marker = join(site.runDir, "program");
  const program = await programMark(site.program);
  const started = existsSync(marker) ? await readFile(marker, "utf8") : "";
  if (started !== program) for (const name of ["service", "guard"] as const) await stopDaemon(site, name, clock);
  await writeFile(marker, program);
  for (const name of ["guard", "service"] as const) if (findDaemon(site, name) === null) await startDaemon(site, name);
  return waitUntilReady(site, clock);
}

/** Names this copy of the program; a work tree has no mark and counts as changed when its path does. */
async function programMark(program: string): Promise<string> {
  const content = await readFile(join(program, ".content"), "utf8").catch(() => "");
  return `${program} ${content.trim()}`;
}
