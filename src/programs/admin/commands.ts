/**
 * Commands of the machine's administrator. They work on files, not over the API: they are for the hour when the
 * service is stopped, lost or not yet there.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Command } from "commander";
import { StillpointError, systemClock } from "../../base/index.ts";
import { openCatalog } from "../../catalog/index.ts";
import { CliFailure } from "../../cli/index.ts";
import { loadConfig } from "../../config/index.ts";
import { rebuildCatalog } from "../../domain/index.ts";
import { readKeyFile, recoveryKit } from "../../keys/index.ts";
import type { ManifestHash } from "../../repository/index.ts";
import { collectGarbage } from "../upkeep.ts";
import { becomeOwner, openConfigured } from "./open.ts";

const DEFAULT_CONFIG = "/etc/stillpoint/config.yaml";
const print = (line: string) => process.stdout.write(`${line}\n`);

interface ConfigFlag {
  readonly config: string;
}

/** Adds `keys`, `catalog` and `repository` to the program. */
export function addAdminCommands(program: Command): void {
  const withConfig = (command: Command) => command.option("--config <file>", "configuration file", DEFAULT_CONFIG);
  const keys = program.command("keys").description("the repository's key");
  withConfig(keys.command("export-recovery-kit"))
    .description("print the repository key as a page to keep in a safe place")
    .action(said(exportRecoveryKit));
  const catalog = program.command("catalog").description("the catalog (service stopped)");
  withConfig(catalog.command("rebuild"))
    .description("fill an empty catalog from the repository and its key")
    .requiredOption("--key <file>", "the repository's key file, or a typed-in recovery kit")
    .action(said(rebuild));
  const repository = program.command("repository").description("the repository (service stopped)");
  withConfig(repository.command("verify"))
    .description("read everything; list every damaged object and the points and disks it breaks")
    .action(said(verify));
  withConfig(repository.command("collect")).description("give back the space of deleted points").action(said(collect));
}

/** An error of ours is said in one line, as the other commands say theirs; anything else is a fault and shows itself. */
function said<T>(action: (flags: T) => Promise<void>): (flags: T) => Promise<void> {
  return async (flags) => {
    try {
      await action(flags);
    } catch (error) {
      if (!(error instanceof StillpointError)) throw error;
      throw new CliFailure(1, `(${error.code}) ${error.message}`);
    }
  };
}

async function exportRecoveryKit(flags: ConfigFlag): Promise<void> {
  const config = loadConfig(flags.config);
  const key = await readKeyFile(config.repository.keyFile);
  if (!key)
    throw new StillpointError("KeyMismatch", `There is no key file at ${config.repository.keyFile}.`, {
      remedy: "It is made when the service first starts; restore it from your copy if it was lost.",
    });
  print(recoveryKit(key, { region: config.region, printedAt: systemClock.now() }));
}

async function rebuild(flags: ConfigFlag & { readonly key: string }): Promise<void> {
  const config = loadConfig(flags.config);
  becomeOwner(config);
  await mkdir(config.dataDir, { recursive: true, mode: 0o700 });
  const repository = await openConfigured(config, flags.key);
  const catalog = await openCatalog(join(config.dataDir, "catalog.sqlite"));
  try {
    const report = await rebuildCatalog({ catalog, repository });
    print(`rebuilt ${report.points} restore points from ${report.entries} journal entries`);
    print(`subscriptions: ${report.subscriptions.join(", ") || "none"}`);
    for (const { pointId, problem } of report.unreadable) print(`unreadable: ${pointId}: ${problem}`);
    for (const pointId of report.notResurrected) print(`deleted, and its manifest is still there: ${pointId}`);
    print(`not rebuilt: ${report.notRebuilt.join(", ")}`);
    if (report.unreadable.length > 0) process.exitCode = 1;
  } finally {
    await catalog.close();
    await repository.close();
  }
}

async function verify(flags: ConfigFlag): Promise<void> {
  const config = loadConfig(flags.config);
  becomeOwner(config);
  const repository = await openConfigured(config);
  const catalog = await openCatalog(join(config.dataDir, "catalog.sqlite"));
  try {
    const live = await catalog.read((tx) => tx.liveManifests());
    const points = live.map(({ pointId, manifest }) => ({
      pointId: pointId as string,
      manifest: manifest as ManifestHash,
    }));
    const report = await repository.verify({ points }, (done, total) => {
      if (process.stderr.isTTY) process.stderr.write(`\rverifying ${done} of ${total} objects`);
    });
    if (process.stderr.isTTY) process.stderr.write("\n");
    for (const { object, problem, breaks } of report.damage) {
      print(`damaged: ${object}: ${problem}`);
      for (const { pointId, diskUid } of breaks) print(`  breaks disk ${diskUid} of ${pointId}`);
      if (breaks.length === 0) print("  no restore point needs it");
    }
    print(
      `read ${report.objectsRead} objects, ${report.bytesRead} bytes; ${report.damage.length} damaged; ${points.length} points checked`,
    );
    if (report.damage.length > 0) process.exitCode = 1;
  } finally {
    await catalog.close();
    await repository.close();
  }
}

async function collect(flags: ConfigFlag): Promise<void> {
  const config = loadConfig(flags.config);
  becomeOwner(config);
  const repository = await openConfigured(config);
  const catalog = await openCatalog(join(config.dataDir, "catalog.sqlite"));
  try {
    const report = await collectGarbage(catalog, repository);
    print(
      `kept ${report.packsKept} packs, condemned ${report.packsCondemned}, swept ${report.packsSwept}, freed ${report.freedBytes} bytes`,
    );
  } finally {
    await catalog.close();
    await repository.close();
  }
}
