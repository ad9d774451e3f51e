import { idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { Deleted } from "../commands.ts";
import { type Context, timestamp } from "../context.ts";
import type { Operation, RestorePoint } from "../model.ts";
import { conflict } from "../names.ts";
import { newOperation } from "../operations/operation.ts";
import type { Performer } from "../operations/perform.ts";
import { retrying } from "../operations/retry.ts";
import type { CatalogReads, CatalogTx } from "../ports.ts";
import { captureTask } from "./capture.ts";
import { tidyLater, undoOnce } from "./leftovers.ts";

/** A capture told to stop stops between two steps; after this it is undone from outside. */
const STOP_TIMEOUT_MS = 60_000;
const GIVE_UP_ATTEMPTS = 5;

/**
 * Deletes a point; one that is Creating is abandoned first. Null when there is none. Conflict while a restore reads it
 * or in the moment of its commit.
 */
export function deletePoint(ctx: Context, id: ResourceId): Promise<Deleted> {
  return remove(ctx, id, () => {});
}

/** Deletes a point that has not succeeded; OperationNotAllowed once it has, or is about to. */
export function abandonPoint(ctx: Context, id: ResourceId): Promise<Deleted> {
  return remove(ctx, id, (point) => {
    if (point.manifest === null) return;
    throw new StillpointError("OperationNotAllowed", `The restore point '${point.name}' has succeeded.`, {
      remedy: "It is not being created any more; delete it when it is not wanted.",
    });
  });
}

async function remove(ctx: Context, id: ResourceId, check: (point: RestorePoint) => void): Promise<Deleted> {
  ctx.writer.check();
  ctx.tasks.admit();
  const decided = await ctx.catalog.transaction(async (tx): Promise<Deleted> => {
    const point = await tx.point(idKey(id));
    if (!point) return null;
    check(point);
    if (point.state === "Deleting") return (await tx.openOperationsOf(idKey(id)))[0] ?? "done";
    await refuseInUse(tx, [point]);
    if (point.state === "Failed") {
      await tx.deletePoint(idKey(id));
      return "done";
    }
    const operation = newOperation(ctx, "point-delete", point.id, { point: point.uid });
    await markDeleting(ctx, tx, point);
    await tx.putOperation(operation);
    return operation;
  });
  if (decided !== null && decided !== "done") ctx.perform(decided);
  return decided;
}

/** Conflict when one of the points is read by a restore, or is being committed right now. */
export async function refuseInUse(tx: CatalogReads, points: readonly RestorePoint[]): Promise<void> {
  const pins = new Map((await tx.pins()).map((pin) => [pin.point, pin.operation]));
  for (const point of points) {
    const operation = pins.get(point.uid);
    if (operation !== undefined)
      throw conflict(
        `The restore point '${point.name}' is being restored (operation ${operation}).`,
        "Wait for the restore to end, then delete it.",
      );
    if (point.state === "Committing")
      throw conflict(`The restore point '${point.name}' is being committed.`, "Try again in a moment.");
  }
}

/** The point is on its way out; what was creating it is Canceled. */
export async function markDeleting(ctx: Context, tx: CatalogTx, point: RestorePoint): Promise<void> {
  await tx.putPoint({ ...point, state: "Deleting" });
  const creation = await tx.operation(point.operationId);
  if (creation?.status !== "InProgress") return;
  await tx.putOperation({
    ...creation,
    status: "Canceled",
    endTime: timestamp(ctx.clock),
    error: { code: "OperationNotAllowed", message: "The restore point was deleted while it was being created." },
  });
}

/** Stops the capture of a point that is Deleting and takes it back. Never committed, so the journal knows nothing. */
export async function abandonCapture(ctx: Context, point: RestorePoint, signal: AbortSignal): Promise<void> {
  await ctx.tasks.stop(captureTask(point), STOP_TIMEOUT_MS);
  await retrying(
    ctx.clock,
    signal,
    GIVE_UP_ATTEMPTS,
    () => true,
    () => ctx.vmLock.hold(point.vmUid, signal, () => undoOnce(ctx, point.uid, "the point is being deleted")),
  );
}

/** A deletion that cannot be finished leaves a point that is there and says so, never one that is half gone. */
export async function revertDeleting(ctx: Context, tx: CatalogTx, point: RestorePoint, error: unknown): Promise<void> {
  const message = error instanceof StillpointError ? error.message : String(error);
  if (point.manifest !== null) await tx.putPoint({ ...point, state: "Succeeded" });
  else {
    await tx.putPoint({ ...point, state: "Failed", error: { code: "VMRestorePointInternalError", message } });
    tidyLater(ctx, point.uid, point.vmUid);
  }
}

export const pointDelete: Performer = {
  run: async (ctx, operation, signal) => {
    const point = await ctx.catalog.read((tx) => tx.point(idKey(operation.resourceId)));
    if (!isOf(point, operation)) {
      // Gone with its entry stored by an earlier life: durable once that is published.
      await ctx.writer.settle();
      return async () => null;
    }
    if (point.manifest === null) {
      await abandonCapture(ctx, point, signal);
      return (tx) => tx.deletePoint(idKey(point.id));
    }
    await untilWritten(ctx, signal, () =>
      ctx.writer.append(async (tx, seal) => {
        if (!(await tx.pointByUid(point.uid))) return;
        await tx.deletePoint(idKey(point.id));
        await seal("delete", { point: point.uid, pointId: point.id });
      }),
    );
    return async () => null;
  },
  fail: async (ctx, tx, operation, error) => {
    const point = await tx.point(idKey(operation.resourceId));
    if (isOf(point, operation)) await revertDeleting(ctx, tx, point, error);
  },
};

/** A deletion in the journal waits as long as the repository is away; a fenced one ends it. */
export async function untilWritten(ctx: Context, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  const again = (error: unknown) => {
    ctx.log.warn({ err: error }, "a deletion waits for the repository's journal");
    return !(error instanceof StillpointError && error.code === "RepositoryFenced");
  };
  await retrying(ctx.clock, signal, Number.POSITIVE_INFINITY, again, work);
}

function isOf(point: RestorePoint | null, operation: Operation): point is RestorePoint {
  return point?.state === "Deleting" && point.uid === (operation.input as { readonly point: string }).point;
}
