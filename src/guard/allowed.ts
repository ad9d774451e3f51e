import { StillpointError } from "../base/index.ts";
import type { QmpStep } from "./protocol.ts";

type Args = Readonly<Record<string, unknown>>;

/**
 * Commands that a step may run, each with those of its arguments that must be names of ours. Nothing here stops,
 * kills, migrates or reconfigures a guest, and nothing touches a job, export, node or bitmap of somebody else.
 */
const COMMANDS: ReadonlyMap<string, readonly string[]> = new Map([
  ["blockdev-add", ["node-name"]],
  ["blockdev-del", ["node-name"]],
  ["transaction", []],
  ["block-export-add", ["id", "node-name"]],
  ["block-export-del", ["id"]],
  ["block-job-cancel", ["device"]],
  ["job-cancel", ["id"]],
  ["job-dismiss", ["id"]],
  ["block-job-set-speed", ["device"]],
  ["block-set-write-threshold", ["node-name"]],
  ["block_resize", []],
  ["query-jobs", []],
  ["query-block-jobs", []],
  ["query-block", []],
  ["query-named-block-nodes", []],
  ["query-block-exports", []],
  ["query-status", []],
]);

/** The same for bitmaps, which come as commands and as actions of a transaction. */
const BITMAPS: ReadonlyMap<string, readonly string[]> = new Map([
  ["block-dirty-bitmap-add", ["name"]],
  ["block-dirty-bitmap-remove", ["name"]],
  ["block-dirty-bitmap-enable", ["name"]],
  ["block-dirty-bitmap-disable", ["name"]],
  ["block-dirty-bitmap-merge", ["target", "bitmaps"]],
]);
const BACKUP = ["job-id", "target"];

/** A scratch file opened as qcow2, raw, or bare. */
const DRIVERS = new Set(["qcow2", "raw", "file"]);
const NODE_OPTIONS = new Set(["driver", "node-name", "file", "filename", "backing", "read-only", "discard"]);

/**
 * Throws OperationNotAllowed unless the step is one of those a capture consists of. `scratchPaths`: the only files
 * that it may open. Backups begin only at the instant, where the checks and deadlines are. The service is trusted; but
 * a guard that runs whatever it is told is a way into every guest.
 */
export function checkStep(step: QmpStep, scratchPaths: ReadonlySet<string>, where: "step" | "instant"): void {
  const refuse = (why: string) =>
    new StillpointError("OperationNotAllowed", `The guard does not run step '${step.name}': ${why}.`);
  const { execute, arguments: args } = step;
  const names = COMMANDS.get(execute) ?? BITMAPS.get(execute);
  if (!names) throw refuse(`'${execute}' is not one of its commands`);
  checkNames(args, names, refuse);
  if (execute === "transaction") checkActions(args, where, refuse);
  else if (where === "instant") throw refuse("a point in time is a transaction");
  // FUSE exports kill QEMU under its sandbox, and a writable export would change what was frozen.
  if (execute === "block-export-add" && (args["type"] !== "nbd" || args["writable"] === true))
    throw refuse("it exports by other means than read-only NBD");
  if (execute === "blockdev-add") checkNode(args, scratchPaths, refuse, 0);
}

function checkActions(args: Args, where: "step" | "instant", refuse: (why: string) => Error): void {
  if (!Array.isArray(args["actions"])) throw refuse("it has no actions");
  for (const action of args["actions"] as readonly { readonly type?: unknown; readonly data?: unknown }[]) {
    const type = String(action?.type);
    const names = type === "blockdev-backup" && where === "instant" ? BACKUP : BITMAPS.get(type);
    if (!names) throw refuse(`'${type}' is not one of its actions`);
    checkNames((action.data ?? {}) as Args, names, refuse);
  }
}

/** Everything that a capture makes, and so all that it may end, is called `sp-…`. */
function checkNames(args: Args, names: readonly string[], refuse: (why: string) => Error): void {
  for (const name of names)
    for (const value of [args[name]].flat())
      if (typeof value !== "string" || !value.startsWith("sp-"))
        throw refuse(`its ${name} is not a name of Stillpoint's`);
}

function checkNode(
  options: Args,
  scratchPaths: ReadonlySet<string>,
  refuse: (why: string) => Error,
  depth: number,
): void {
  for (const name of Object.keys(options)) if (!NODE_OPTIONS.has(name)) throw refuse(`it sets '${name}' of a node`);
  if (!DRIVERS.has(String(options["driver"]))) throw refuse(`it opens a node of driver '${String(options["driver"])}'`);
  if (options["filename"] !== undefined && !scratchPaths.has(String(options["filename"])))
    throw refuse("it opens a file that is not its scratch file");
  const { file, backing } = options;
  if (backing !== undefined && backing !== null && typeof backing !== "string")
    throw refuse("its backing is not a node's name");
  if (typeof file !== "object" || file === null) return;
  if (depth > 2) throw refuse("its nodes are nested too deep");
  checkNode(file as Args, scratchPaths, refuse, depth + 1);
}
