/** Pushed disks: QEMU itself writes the state of the point into a staging file; we read that file when it is whole. */
import { StillpointError } from "../base/index.ts";
import { connectNbd, type NbdClient } from "../nbd/index.ts";
import { type CaptureDeps, guardAgain, guardStep } from "./deps.ts";
import type { DiskOutcome } from "./disk.ts";
import type { CapturePlan, DiskPlan } from "./plan.ts";
import { stateOf } from "./state.ts";
import { detachStagingSteps } from "./steps.ts";

const POLL_MS = 200;
const QUERY_PUSH = { name: "query-push", execute: "query-jobs", arguments: {} };

interface JobRow {
  readonly id?: unknown;
  readonly status?: unknown;
  readonly error?: unknown;
}

/** Waits until the push has written everything. Bounded by the capture's own watches: a lost source aborts `signal`. */
export async function awaitPush(
  deps: CaptureDeps,
  plan: CapturePlan,
  disk: DiskPlan,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    const jobs = (await guardAgain(deps, () =>
      deps.guard.call("capture.step", { capture: plan.capture, step: QUERY_PUSH }),
    )) as readonly JobRow[];
    const job = jobs.find((candidate) => candidate.id === disk.names.job);
    // Dismissed by a former life of the service, which does so only after the job ended well.
    if (!job) return;
    if (job.error)
      throw new StillpointError(
        "VMRestorePointInternalError",
        `QEMU could not write the staging file: ${String(job.error)}.`,
      );
    if (job.status === "concluded") return;
    await deps.clock.sleep(POLL_MS, signal);
  }
}

/** Closes the staging file in QEMU and hands a reader of it to `use`. */
export async function openStaging(
  deps: CaptureDeps,
  plan: CapturePlan,
  disk: DiskPlan,
  use: (nbd: NbdClient) => Promise<DiskOutcome>,
): Promise<DiskOutcome> {
  for (const step of detachStagingSteps(disk))
    await guardStep(deps, step.name, "capture.step", { capture: plan.capture, step });
  const path = (await guardAgain(deps, () => stateOf(deps, plan.capture)))?.scratch[disk.scratch.name];
  if (path === undefined) throw new StillpointError("VMRestorePointInternalError", "The staging file is gone.");
  await deps.probe?.(`staging-${disk.scratch.name}`, "before");
  return readImage(deps, { path, format: "qcow2" }, use);
}

/** Reads an image that no QEMU has open for writing, through a read-only NBD export of its own process. */
export async function readImage<T>(
  deps: CaptureDeps,
  image: { readonly path: string; readonly format: "raw" | "qcow2" },
  use: (nbd: NbdClient) => Promise<T>,
): Promise<T> {
  const source = await deps.offline.open({ ...image, writable: false });
  try {
    const nbd = await connectNbd({
      socketPath: source.socketPath,
      exportName: source.exportName,
      metaContexts: ["base:allocation"],
      depth: 16,
      requestTimeoutMs: 60_000,
    });
    try {
      return await use(nbd);
    } finally {
      await nbd.close();
    }
  } finally {
    await source.close();
  }
}
