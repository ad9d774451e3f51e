import { type Clock, idKey, StillpointError } from "../../base/index.ts";
import { type Context, timestamp } from "../context.ts";
import type { Intent, RestorePoint } from "../model.ts";
import { retrying } from "../operations/retry.ts";
import type { Captured, CatalogTx } from "../ports.ts";

/** Tries to reach the repository before a point whose bytes are all there is given up: about two minutes. */
const COMMIT_ATTEMPTS = 9;

/**
 * The journal entry is the commit. One transaction makes the point Committing and stores entry and anchors; then the
 * entry is published; then {@link finishCommits}. From the first transaction on the point can only succeed.
 */
export async function commitPoint(
  ctx: Context,
  intent: Intent,
  captured: Captured,
  signal: AbortSignal,
): Promise<void> {
  if (captured.record.alarms.length > 0)
    ctx.log.error({ point: intent.pointKey, alarms: captured.record.alarms }, "a capture raised an alarm");
  try {
    await retrying(
      ctx.clock,
      signal,
      COMMIT_ATTEMPTS,
      (error) => isAway(error),
      async () => {
        await ctx.writer.append(async (tx, seal) => {
          const point = await tx.pointByUid(intent.pointUid);
          if (point?.state === "Committing" || point?.state === "Succeeded") return;
          if (point?.state !== "Creating")
            throw new StillpointError("Conflict", "The restore point was deleted while it was being created.");
          const { manifest, disks, nvram, record } = captured;
          const durable: RestorePoint = { ...point, manifest, disks, nvram, record, percent: 100 };
          await tx.putPoint({ ...durable, state: "Committing" });
          const current = (await tx.intent(intent.capture)) ?? intent;
          await tx.putIntent({ ...current, anchors: captured.anchors });
          await seal("commit", {
            manifest,
            point: point.uid,
            pointId: point.id,
            collectionId: point.collectionId,
            resource: { ...durable, state: "Succeeded" },
          });
        });
      },
    );
  } catch (error) {
    const point = await ctx.catalog.read((tx) => tx.pointByUid(intent.pointUid));
    if (point?.state !== "Committing" && point?.state !== "Succeeded") throw error;
    await settleCommit(ctx, signal);
  }
}

/** Rolls a stored commit forward, however long the repository is away; only a fenced repository ends the waiting. */
export async function settleCommit(ctx: Context, signal: AbortSignal): Promise<void> {
  const attempts = Number.POSITIVE_INFINITY;
  await retrying(
    ctx.clock,
    signal,
    attempts,
    (error) => !isFenced(error),
    () => ctx.writer.settle(),
  );
}

/**
 * In the transaction that marks an entry as published: every Committing point is Succeeded, its anchors count, its
 * operation ends. At most one entry is unpublished at any time, so all that is Committing belongs to it.
 */
export async function finishCommits(clock: Clock, tx: CatalogTx): Promise<void> {
  for (const point of await tx.unsettledPoints()) {
    if (point.state !== "Committing") continue;
    await tx.putPoint({ ...point, state: "Succeeded" });
    const intent = await tx.intent(point.uid);
    for (const anchor of intent?.anchors ?? []) await tx.putAnchor(anchor);
    const operation = await tx.operation(point.operationId);
    if (operation)
      await tx.putOperation({
        ...operation,
        status: "Succeeded",
        endTime: timestamp(clock),
        percent: 100,
        output: { point: idKey(point.id) },
      });
  }
}

function isFenced(error: unknown): boolean {
  return error instanceof StillpointError && error.code === "RepositoryFenced";
}

function isAway(error: unknown): boolean {
  return (
    error instanceof StillpointError && (error.code === "RepositoryUnavailable" || error.code === "DeadlineExceeded")
  );
}
