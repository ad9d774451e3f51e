import { type ErrorCode, idKey, type OperationId, type ResourceId, StillpointError } from "../../base/index.ts";
import { type Context, timestamp } from "../context.ts";
import type { Operation, OperationKind } from "../model.ts";
import { nameOf, subscriptionOf } from "../names.ts";
import type { CatalogReads } from "../ports.ts";

/** A new operation, under way. It exists once it is put into the catalog. */
export function newOperation(ctx: Context, kind: OperationKind, resourceId: ResourceId, input: unknown): Operation {
  return {
    id: ctx.random.uuid() as OperationId,
    kind,
    subscriptionId: subscriptionOf(resourceId),
    location: ctx.settings.region,
    resourceId,
    status: "InProgress",
    startTime: timestamp(ctx.clock),
    endTime: null,
    percent: 0,
    input,
    output: null,
    error: null,
  };
}

export function succeeded(ctx: Context, operation: Operation, output: unknown): Operation {
  return { ...operation, status: "Succeeded", endTime: timestamp(ctx.clock), percent: 100, output };
}

export function failed(ctx: Context, operation: Operation, error: unknown): Operation {
  return { ...operation, status: "Failed", endTime: timestamp(ctx.clock), error: errorFacts(error) };
}

/** What a resource or an operation keeps of an error: never a stack, and a stranger's error only by its message. */
export function errorFacts(error: unknown): { readonly code: ErrorCode; readonly message: string } {
  if (error instanceof StillpointError) return { code: error.code, message: error.message };
  return { code: "InternalError", message: `An unexpected error ended this: ${(error as Error)?.message ?? error}` };
}

/** Conflict when another operation on the resource is under way. */
export async function refuseBusy(tx: CatalogReads, id: ResourceId): Promise<void> {
  const [open] = await tx.openOperationsOf(idKey(id));
  if (!open) return;
  throw new StillpointError("Conflict", `The operation ${open.kind} on '${nameOf(id)}' is still in progress.`, {
    remedy: "Wait for it to end, then try again.",
  });
}
