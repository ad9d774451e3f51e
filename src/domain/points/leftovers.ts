import type { PointUid, VmUid } from "../../base/index.ts";
import type { Context } from "../context.ts";
import { retrying } from "../operations/retry.ts";

/**
 * Takes back what a capture left in QEMU and in the capture folder, then forgets its intent. An intent that carries
 * anchors belongs to a point that commits: it is released. Any other is given up. Repeatable; no intent: done.
 */
export async function undoOnce(ctx: Context, capture: string, reason: string): Promise<void> {
  const intent = await ctx.catalog.read((tx) => tx.intent(capture));
  if (!intent) return;
  if (intent.anchors) await ctx.captures.release(intent);
  else await ctx.captures.giveUp(intent, reason);
  await ctx.catalog.transaction((tx) => tx.deleteIntent(capture));
}

/** The same, again and again until the guard is there: at most one per VM, as the next capture waits for it. */
export function tidyLater(ctx: Context, capture: string, vm: VmUid): void {
  ctx.tasks.start(`tidy:${capture}`, async (signal) => {
    await retrying(
      ctx.clock,
      signal,
      Number.POSITIVE_INFINITY,
      () => true,
      () => ctx.vmLock.hold(vm, signal, () => undoOnce(ctx, capture, "an earlier attempt ended")),
    );
  });
}

/** Before a capture of the VM starts, nothing of an earlier one may be left. The caller holds the VM's lock. */
export async function clearLeftovers(ctx: Context, vm: VmUid, except: PointUid): Promise<void> {
  for (const intent of await ctx.catalog.read((tx) => tx.intentsOfVm(vm)))
    if (intent.capture !== except) await undoOnce(ctx, intent.capture, "the next capture begins");
}

const LAST_ATTEMPTS = 5;

/** The same before the VM itself goes, with some patience: its QEMU may have ended a moment ago. */
export async function clearAllLeftovers(ctx: Context, vm: VmUid, signal: AbortSignal): Promise<void> {
  for (const { capture } of await ctx.catalog.read((tx) => tx.intentsOfVm(vm)))
    await retrying(
      ctx.clock,
      signal,
      LAST_ATTEMPTS,
      () => true,
      () => undoOnce(ctx, capture, "the virtual machine is let go"),
    );
}
