import { isDeepStrictEqual } from "node:util";
import { StillpointError } from "../base/index.ts";
import { readJobs } from "../hypervisors/qemu/index.ts";
import { checkStep } from "./allowed.ts";
import type { Endings } from "./endings.ts";
import { type CaptureTools, captureState, isActive } from "./entries.ts";
import { takeInstant } from "./instant.ts";
import type { CaptureEntry } from "./ledger.ts";
import type { CaptureId, CaptureOpen, GuardCalls } from "./protocol.ts";
import { makeCaptureFolder, makeScratch } from "./scratch.ts";
import { runStep } from "./steps.ts";
import type { Watch } from "./watch.ts";

type Calls = {
  readonly [M in Extract<keyof GuardCalls, `capture.${string}`>]: (
    params: GuardCalls[M]["params"],
  ) => Promise<GuardCalls[M]["result"]>;
};

/** The calls of a capture, in the order in which they come. */
export function captureCalls(tools: CaptureTools, endings: Endings, watch: Watch): Calls {
  const { options, book, machines } = tools;

  function entryOf(capture: CaptureId): CaptureEntry {
    const entry = book.ledger().captures.get(capture);
    if (entry) return entry;
    throw new StillpointError("ResourceNotFound", `The guard knows no capture ${capture}.`);
  }

  /** The entry, which must not have ended; a call with it counts as a word from the service. */
  function active(capture: CaptureId): CaptureEntry {
    const entry = entryOf(capture);
    watch.word(capture);
    if (isActive(entry)) return entry;
    const how = entry.closing
      ? "is being closed"
      : `was ${entry.phase === "lost" ? "lost" : "given up"}: ${entry.reason}`;
    throw new StillpointError("OperationNotAllowed", `The capture ${how}.`);
  }

  /** Runs with the VM to itself and the entry as it then is. */
  function exclusively<T>(capture: CaptureId, work: (entry: CaptureEntry) => Promise<T>): Promise<T> {
    return machines.get(active(capture).open.vm).exclusively(() => work(active(capture)));
  }

  const state = (capture: CaptureId) => captureState(tools, entryOf(capture));

  return {
    "capture.open": async (open) => {
      const known = book.ledger().captures.get(open.capture);
      if (known && !isDeepStrictEqual(known.open, open))
        throw new StillpointError("Conflict", `The capture ${open.capture} was opened with other content.`);
      if (!known) await openCapture(tools, open);
      watch.word(open.capture);
      return state(open.capture);
    },

    "capture.scratch": ({ capture, scratch }) =>
      exclusively(capture, async (entry) => {
        const known = entry.scratch.get(scratch.name);
        if (known && isDeepStrictEqual(known.request, scratch)) return { path: known.path };
        if (known)
          throw new StillpointError("Conflict", `The scratch file '${scratch.name}' was made with another size.`);
        await makeCaptureFolder(options, capture);
        const path = await makeScratch(options, capture, scratch);
        await book.note({ t: "scratch", capture, scratch, path });
        return { path };
      }),

    "capture.serve": ({ capture }) =>
      exclusively(capture, async (entry) => ({ socket: await tools.nbd.start(machines.get(entry.open.vm)) })),

    "capture.step": ({ capture, step }) =>
      exclusively(capture, async (entry) => {
        checkStep(step, new Set([...entry.scratch.values()].map(({ path }) => path)), "step");
        const qmp = machines.get(entry.open.vm).qmp();
        if (step.execute === "job-dismiss") await noteEndedJob(tools, entry, String(step.arguments["id"]));
        if (step.execute === "block-set-write-threshold") watch.threshold(capture, String(step.arguments["node-name"]));
        return (await runStep(qmp, step, options)) ?? null;
      }),

    "capture.instant": async ({ capture, ...request }) => {
      checkStep(request.transaction, new Set(), "instant");
      try {
        return await exclusively(capture, (entry) => takeInstant(tools, entry, request));
      } finally {
        // Unfinished means that nobody knows whether it was taken: undone by what QEMU shows.
        if (entryOf(capture).phase === "instant") void endings.giveUp(capture, "the point in time was not confirmed");
      }
    },

    "capture.check": async ({ capture }) => {
      const entry = entryOf(capture);
      watch.word(capture);
      if (isActive(entry)) {
        const problem = await machines.get(entry.open.vm).exclusively(() => watch.problem(entryOf(capture)));
        if (problem !== null) await endings.giveUp(capture, problem);
      }
      return state(capture);
    },

    "capture.giveUp": async ({ capture, reason }) => {
      const entry = entryOf(capture);
      if (entry.closing) throw new StillpointError("OperationNotAllowed", "The capture is being closed.");
      await endings.giveUp(capture, reason);
      return state(capture);
    },

    "capture.close": async ({ capture, steps }) => {
      if (!book.ledger().captures.has(capture)) return {};
      for (const step of steps) checkStep(step, new Set(), "step");
      await endings.close(capture, steps);
      return {};
    },

    "capture.list": async () => [...book.ledger().captures.values()].map((entry) => captureState(tools, entry)),
  };
}

async function openCapture({ book, machines, announce, ...tools }: CaptureTools, open: CaptureOpen): Promise<void> {
  for (const step of [...open.giveUp.before, ...open.giveUp.after]) checkStep(step, new Set(), "step");
  const machine = machines.get(open.vm);
  await machine.exclusively(async () => {
    const { incarnation, quitting } = machine.state();
    machine.qmp();
    if (incarnation !== open.incarnation)
      throw new StillpointError("Conflict", "QEMU was started anew since the capture was planned.");
    if (quitting) throw new StillpointError("OperationNotAllowed", "The virtual machine is being deallocated.");
    await book.note({ t: "open", open });
  });
  const entry = book.ledger().captures.get(open.capture);
  if (entry) announce.capture(captureState(tools, entry));
}

/** A push job that ended well may go before the capture does; one that failed may not go unnoticed. */
async function noteEndedJob({ book, machines }: CaptureTools, entry: CaptureEntry, id: string): Promise<void> {
  if (!entry.open.jobs.includes(id) || entry.endedJobs.has(id)) return;
  const job = (await readJobs(machines.get(entry.open.vm).qmp())).find((candidate) => candidate.id === id);
  if (job?.status !== "concluded" || job.error !== null)
    throw new StillpointError(
      "OperationNotAllowed",
      `The job ${id} has not ended well (${job?.error ?? job?.status ?? "it is gone"}).`,
    );
  await book.note({ t: "job-ended", capture: entry.open.capture, job: id });
}
