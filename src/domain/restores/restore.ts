import { idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { RestoreCommand, RestoreOutput } from "../commands.ts";
import type { Context } from "../context.ts";
import { startMachine } from "../machines/power.ts";
import { needVm, powerOf } from "../machines/read.ts";
import type { Operation, RestorePoint, Vm } from "../model.ts";
import { conflict, needGroup } from "../names.ts";
import { newOperation } from "../operations/operation.ts";
import type { Performer } from "../operations/perform.ts";
import { needPoint, needRestorable } from "../points/read.ts";
import type { CatalogTx } from "../ports.ts";
import { planRestore, type RestorePlan } from "./plan.ts";

/** What a restart needs to go on. The rows of disks and VM are in the catalog, Creating, from the first moment. */
interface RestoreInput {
  readonly disks: readonly { readonly id: ResourceId; readonly source: ResourceId }[];
  readonly vm: ResourceId | null;
  readonly start: boolean;
  readonly notRestored: readonly string[];
}

/**
 * Restores disks, and the whole VM when it gets a name. The point is pinned until the operation ends. New resources are
 * Creating at once, so that nobody else takes their names; they turn Succeeded with their bytes, or go again.
 */
export async function restore(ctx: Context, command: RestoreCommand): Promise<Operation> {
  ctx.tasks.admit();
  if (command.keepIdentity) await refuseRunningSource(ctx, command.pointId);
  const operation = await ctx.catalog.transaction(async (tx) => {
    await needGroup(tx, command.targetGroup);
    const point = await needRestorable(ctx, tx, command.pointId);
    const plan = await planRestore(ctx, tx, command, point);
    return write(ctx, tx, command, point, plan);
  });
  ctx.perform(operation);
  return operation;
}

/** Two running machines with the same addresses and serials harm each other. */
async function refuseRunningSource(ctx: Context, pointId: ResourceId): Promise<void> {
  const source = await ctx.catalog.read(async (tx) => tx.vmByUid((await needPoint(tx, pointId)).vmUid));
  if (!source) return;
  const { power, reason } = await powerOf(ctx, source);
  if (power === "deallocated" || power === "stopped") return;
  throw conflict(
    `The source '${source.name}' is ${power}${reason === null ? "" : ` (${reason})`}, so its identity cannot be used again.`,
    "Deallocate or delete it first, or restore without keepIdentity.",
  );
}

async function write(
  ctx: Context,
  tx: CatalogTx,
  command: RestoreCommand,
  point: RestorePoint,
  plan: RestorePlan,
): Promise<Operation> {
  const input: RestoreInput = {
    disks: plan.disks.map(({ source, disk }) => ({ id: disk.id, source: source.id })),
    vm: plan.vm?.id ?? null,
    start: command.start,
    notRestored: plan.notRestored,
  };
  const operation = newOperation(ctx, "restore", point.id, input);
  for (const { disk } of plan.disks) await tx.putResource(disk);
  if (plan.vm) await tx.putResource(plan.vm);
  await tx.putOperation(operation);
  await tx.pin(point.uid, operation.id);
  return operation;
}

export const restoreWork: Performer = {
  run: async (ctx, operation, signal) => {
    const input = operation.input as RestoreInput;
    const point = await ctx.catalog.read((tx) => needPoint(tx, operation.resourceId));
    for (const [index, entry] of input.disks.entries()) {
      const done = (fraction: number) =>
        ctx.progress.set(operation.id, Math.floor(((index + fraction) / input.disks.length) * 98));
      await restoreDisk(ctx, point, entry, done, signal);
    }
    const lacking = input.vm === null ? [] : await restoreVm(ctx, point, input.vm, input.start);
    const output: RestoreOutput = {
      disks: input.disks.map((disk) => disk.id),
      vm: input.vm,
      notRestored: [...input.notRestored, ...lacking],
    };
    return async () => output;
  },
  undo: async (ctx, operation) => {
    for (const { disk } of await unfinished(ctx, operation)) if (disk.path !== null) await ctx.images.remove(disk.path);
  },
  fail: async (ctx, tx, operation) => {
    const input = operation.input as RestoreInput;
    const vm = input.vm === null ? null : await tx.resource("vm", idKey(input.vm));
    const whole = await allThere(tx, input);
    // With every disk whole, what could not be done is the start: disks and machine are worth keeping.
    if (whole && vm) await tx.putResource({ ...vm, provisioningState: "Failed" });
    if (whole) return;
    if (vm) await tx.deleteResource("vm", idKey(vm.id));
    for (const { id } of input.disks) {
      const disk = await tx.resource("disk", idKey(id));
      if (disk?.provisioningState === "Creating") await tx.deleteResource("disk", idKey(id));
      else if (disk) await tx.putResource({ ...disk, managedBy: null });
    }
    ctx.log.warn({ operation: operation.id }, "restore failed; what it had not finished was removed");
  },
};

async function restoreDisk(
  ctx: Context,
  point: RestorePoint,
  entry: RestoreInput["disks"][number],
  progress: (fraction: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const disk = await ctx.catalog.read((tx) => tx.resource("disk", idKey(entry.id)));
  if (disk?.provisioningState === "Succeeded") return;
  const source = point.disks.find((candidate) => idKey(candidate.id) === idKey(entry.source));
  if (!disk || disk.path === null || !source)
    throw new StillpointError("InternalError", `The restore lost track of the disk '${entry.id}'.`);
  const { path, format, sizeBytes } = disk;
  // What an earlier life made under the final name is whole, but cheaper to write again than to prove.
  await ctx.images.remove(path);
  await ctx.restores.restoreDisk(source, { path, format, sizeBytes }, progress, signal);
  await ctx.catalog.transaction(async (tx) => {
    const now = await tx.resource("disk", idKey(entry.id));
    if (now) await tx.putResource({ ...now, provisioningState: "Succeeded" });
  });
}

const OTHER_FIRMWARE =
  "the UEFI variables: they are laid out for other firmware than this host's (host.qemu.firmwareVars), so the machine " +
  "starts with fresh ones";

/** Resolves with what could not be restored of the machine. */
async function restoreVm(
  ctx: Context,
  point: RestorePoint,
  id: ResourceId,
  start: boolean,
): Promise<readonly string[]> {
  const vm = await ctx.catalog.read((tx) => needVm(tx, id));
  const fits = point.nvram === null || (await ctx.images.nvramFits(ctx.restores.nvramSizeBytes(point.nvram)));
  if (vm.nvramPath === null && point.nvram !== null && fits) {
    const nvramPath = await ctx.restores.restoreNvram(point.nvram, vm.vmUid);
    await ctx.catalog.transaction(async (tx) => tx.putResource({ ...(await needVm(tx, id)), nvramPath }));
  }
  if (start) await startMachine(ctx, id);
  await ctx.catalog.transaction(async (tx) => {
    const now: Vm = await needVm(tx, id);
    await tx.putResource({ ...now, provisioningState: "Succeeded" });
  });
  return fits ? [] : [OTHER_FIRMWARE];
}

async function unfinished(ctx: Context, operation: Operation) {
  const input = operation.input as RestoreInput;
  return ctx.catalog.read(async (tx) => {
    const disks = await Promise.all(input.disks.map(({ id }) => tx.resource("disk", idKey(id))));
    return disks.flatMap((disk) => (disk?.provisioningState === "Creating" ? [{ disk }] : []));
  });
}

async function allThere(tx: CatalogTx, input: RestoreInput): Promise<boolean> {
  const disks = await Promise.all(input.disks.map(({ id }) => tx.resource("disk", idKey(id))));
  return disks.every((disk) => disk?.provisioningState === "Succeeded");
}
