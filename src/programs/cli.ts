#!/usr/bin/env node
import { systemClock } from "../base/index.ts";
import { API_COMMANDS, type CommandGroup, runCli } from "../cli/index.ts";
import { addAdminCommands } from "./admin/commands.ts";

/** Groups of commands, each from its own file; local administration comes beside those of the API. */
const groups: readonly CommandGroup[] = [...API_COMMANDS, addAdminCommands];

const { env, stdin, stdout, stderr } = process;
process.exitCode = await runCli(process.argv.slice(2), groups, { env, stdin, stdout, stderr, clock: systemClock });
