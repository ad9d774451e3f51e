import { StillpointError } from "../base/index.ts";
import type { Context } from "./context.ts";
import { startVm } from "./machines/power.ts";
import type { Vm } from "./model.ts";
import { retrying } from "./operations/retry.ts";
import { everyPage } from "./paging.ts";
import { startCapture } from "./points/capture.ts";
import { tidyLater } from "./points/leftovers.ts";

/**
 * After a start: catalog and repository agree (or writing stays off, with an alarm), what was stored is published, and
 * each intent, unsettled point and open operation is decided or under way again.
 */
export async function recover(ctx: Context): Promise<void> {
  try {
    await ctx.writer.settle();
  } catch (error) {
    // The service starts all the same: points can be listed, and the repository may come back at any time.
    ctx.log.error({ err: error }, "catalog and repository could not be compared at start");
  }
  const { points, intents, operations } = await ctx.catalog.read(async (tx) => ({
    points: await tx.unsettledPoints(),
    intents: await tx.intents(),
    operations: await tx.openOperations(),
  }));
  const underWay = new Set<string>();
  for (const point of points) {
    underWay.add(point.uid);
    if (point.state !== "Deleting") startCapture(ctx, point, true);
  }
  for (const intent of intents) if (!underWay.has(intent.pointUid)) tidyLater(ctx, intent.capture, intent.vmUid);
  for (const operation of operations) if (operation.kind !== "point-create") ctx.perform(operation);
  await wakeMachines(ctx);
}

/**
 * Own VMs that were running and have no QEMU any more (the host was rebooted) are started again, as Azure does. A guest
 * that shut itself down keeps its QEMU and stays off. Never while a point reads the disks: {@link startVm} refuses, and
 * it is tried again.
 */
async function wakeMachines(ctx: Context): Promise<void> {
  const vms = await ctx.catalog.read((tx) => everyPage((page) => tx.resources("vm", "/subscriptions/", page)));
  for (const vm of vms)
    if (vm.control === "own" && vm.desiredPower === "running" && vm.provisioningState === "Succeeded") wake(ctx, vm);
}

function wake(ctx: Context, { id, vmUid }: Vm): void {
  ctx.tasks.start(`wake:${vmUid}`, (signal) =>
    retrying(ctx.clock, signal, Number.POSITIVE_INFINITY, isTemporary, async () => {
      const now = await ctx.catalog.read((tx) => tx.vmByUid(vmUid));
      if (now?.desiredPower !== "running" || now.provisioningState !== "Succeeded") return;
      const { power } = await ctx.machines.power(vmUid);
      if (power === "deallocated") await startVm(ctx, id);
    }),
  );
}

function isTemporary(error: unknown): boolean {
  return error instanceof StillpointError && (error.status === 409 || error.status >= 500);
}
