import { StillpointError } from "../base/index.ts";
import type { QmpStep } from "./protocol.ts";

/** Commands that a step may run. Nothing here stops, kills, migrates or reconfigures a guest. */
const COMMANDS = new Set([
  ...["blockdev-add", "blockdev-del", "transaction", "block-export-add", "block-export-del"],
  ...["block-job-cancel", "job-cancel", "job-dismiss", "block-job-set-speed", "block-set-write-threshold"],
  ...["block-dirty-bitmap-add", "block-dirty-bitmap-remove", "block-dirty-bitmap-enable"],
  ...["block-dirty-bitmap-disable", "block-dirty-bitmap-merge", "block_resize"],
  ...[
    "query-jobs",
    "query-block-jobs",
    "query-block",
    "query-named-block-nodes",
    "query-block-exports",
    "query-status",
  ],
]);

const ACTIONS = new Set([
  ...["blockdev-backup", "block-dirty-bitmap-add", "block-dirty-bitmap-remove", "block-dirty-bitmap-enable"],
  ...["block-dirty-bitmap-disable", "block-dirty-bitmap-merge"],
]);

/** A scratch file opened as qcow2, raw, or bare. */
const DRIVERS = new Set(["qcow2", "raw", "file"]);

/**
 * Throws OperationNotAllowed unless the step is one of those a capture consists of. `scratchPaths`: the only files
 * that it may open. Backups begin only at the instant, where the checks and deadlines are. The service is trusted; but a guard that runs whatever it is told is a way into every guest.
 */
export function checkStep(step: QmpStep, scratchPaths: ReadonlySet<string>, where: "step" | "instant"): void {
  const refuse = (why: string) =>
    new StillpointError("OperationNotAllowed", `The guard does not run step '${step.name}': ${why}.`);
  if (!COMMANDS.has(step.execute)) throw refuse(`'${step.execute}' is not one of its commands`);
  const args = step.arguments;
  if (step.execute === "transaction") {
    if (!Array.isArray(args["actions"])) throw refuse("it has no actions");
    for (const action of args["actions"] as readonly { readonly type?: unknown }[])
      if (!ACTIONS.has(String(action?.type)) || (where === "step" && action.type === "blockdev-backup"))
        throw refuse(`'${String(action?.type)}' is not one of its actions`);
  } else if (where === "instant") throw refuse("a point in time is a transaction");
  // FUSE exports kill QEMU under its sandbox, and a writable export would change what was frozen.
  if (step.execute === "block-export-add" && (args["type"] !== "nbd" || args["writable"] === true))
    throw refuse("it exports by other means than read-only NBD");
  if (step.execute === "blockdev-add") checkNode(args, scratchPaths, refuse, 0);
}

const NODE_OPTIONS = new Set(["driver", "node-name", "file", "filename", "backing", "read-only", "discard"]);

function checkNode(
  options: Readonly<Record<string, unknown>>,
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
  checkNode(file as Readonly<Record<string, unknown>>, scratchPaths, refuse, depth + 1);
}
