import { Command, CommanderError } from "commander";
import { addDiskCommands } from "./commands/disk.ts";
import { addGroupCommands } from "./commands/group.ts";
import { addRestoreCommands } from "./commands/restore.ts";
import { addRestorePointCommands } from "./commands/restorePoint.ts";
import { addVmCommands } from "./commands/vm.ts";
import type { Surroundings } from "./context.ts";
import { CliFailure } from "./failure.ts";

export type { Surroundings } from "./context.ts";
export { CliFailure } from "./failure.ts";

/** Adds one group of commands to the program. */
export type CommandGroup = (program: Command, surroundings: Surroundings) => void;

/** The commands that speak to the service over its API, and to nothing else. */
export const API_COMMANDS: readonly CommandGroup[] = [
  addGroupCommands,
  addDiskCommands,
  addVmCommands,
  addRestorePointCommands,
  addRestoreCommands,
];

/**
 * Runs one command line. Results go to stdout, everything else to stderr. Returns the exit code: 0 done, 1 refused or
 * failed, 2 a wrong command line or settings, 3 not found.
 */
export async function runCli(
  args: readonly string[],
  groups: readonly CommandGroup[],
  surroundings: Surroundings,
): Promise<number> {
  const { stdout, stderr } = surroundings;
  const program = new Command("stillpoint").description("VM restore points for QEMU/KVM hosts").exitOverride();
  program.configureOutput({ writeOut: (text) => stdout.write(text), writeErr: (text) => stderr.write(text) });
  program.showHelpAfterError("(add --help for the options)");
  for (const add of groups) add(program, surroundings);
  try {
    await program.parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (!(error instanceof CliFailure)) throw error;
    stderr.write(`ERROR: ${error.message}\n`);
    return error.exitCode;
  }
}
