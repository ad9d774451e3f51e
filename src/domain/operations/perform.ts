import { StillpointError } from "../../base/index.ts";
import type { Context } from "../context.ts";
import type { Operation, OperationKind } from "../model.ts";
import type { CatalogTx } from "../ports.ts";
import { failed, succeeded } from "./operation.ts";

/** Puts the result into the catalog; its value is the operation's output. */
export type Finish = (tx: CatalogTx) => Promise<unknown>;

/**
 * The work behind one kind of operation. `run` starts from what the catalog says, never from memory, so that running it
 * again after a crash at any instruction ends in the same state. When it throws, `undo` takes back what lies outside the
 * catalog (an error there ends in the log), and `fail` leaves the resources in a state that says what happened.
 */
export interface Performer {
  run(ctx: Context, operation: Operation, signal: AbortSignal): Promise<Finish>;
  undo?(ctx: Context, operation: Operation): Promise<void>;
  fail(ctx: Context, tx: CatalogTx, operation: Operation, error: unknown): Promise<void>;
}

export type Performers = Readonly<Record<Exclude<OperationKind, "point-create" | "group-delete">, Performer>>;

/** Runs an operation in the background to its durable end. A service that stops leaves it open for the next start. */
export function performWith(ctx: () => Context, performers: Performers): (operation: Operation) => void {
  return (operation) => {
    const { kind } = operation;
    if (kind === "point-create" || kind === "group-delete")
      throw new StillpointError("InternalError", `${kind} is no work of its own.`);
    const context = ctx();
    context.tasks.start(`operation:${operation.id}`, (signal) => perform(context, performers[kind], operation, signal));
  };
}

async function perform(ctx: Context, performer: Performer, operation: Operation, signal: AbortSignal): Promise<void> {
  try {
    const finish = await performer.run(ctx, operation, signal);
    await ctx.catalog.transaction(async (tx) => {
      const output = await finish(tx);
      await tx.putOperation(succeeded(ctx, operation, output));
      await tx.unpin(operation.id);
    });
  } catch (error) {
    if (signal.aborted) return;
    ctx.log.warn({ operation: operation.id, kind: operation.kind, err: error }, "operation failed");
    await undo(ctx, performer, operation);
    await ctx.catalog.transaction(async (tx) => {
      await performer.fail(ctx, tx, operation, error);
      await tx.putOperation(failed(ctx, operation, error));
      await tx.unpin(operation.id);
    });
  } finally {
    ctx.progress.delete(operation.id);
  }
}

async function undo(ctx: Context, performer: Performer, operation: Operation): Promise<void> {
  try {
    await performer.undo?.(ctx, operation);
  } catch (error) {
    ctx.log.error({ operation: operation.id, err: error }, "a failed operation could not be undone");
  }
}
