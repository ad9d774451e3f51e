import { type Clock, StillpointError } from "../base/index.ts";
import type { GuestAgent } from "../hypervisors/agent/index.ts";
import { readStatus } from "../hypervisors/qemu/index.ts";
import { QmpError } from "../hypervisors/qmp/index.ts";
import { withAgent } from "./agents.ts";
import { type CaptureTools, captureState } from "./entries.ts";
import type { CaptureEntry } from "./ledger.ts";
import type { Machine } from "./machine.ts";
import type { FreezeFacts, InstantFacts, InstantRequest } from "./protocol.ts";
import { runStep } from "./steps.ts";
import { thawNow } from "./thaw.ts";

/**
 * Takes the point in time. Afterwards the capture is `taken`, or `open` again when certainly nothing was taken, or
 * still `instant` when nobody knows. Whatever happens, a guest that was frozen is thawed, by a later guard if need be.
 */
export async function takeInstant(
  tools: CaptureTools,
  entry: CaptureEntry,
  request: InstantRequest,
): Promise<InstantFacts> {
  const { book, options, machines } = tools;
  const { capture, vm } = entry.open;
  if (entry.phase !== "open")
    throw new StillpointError("OperationNotAllowed", "The point in time of this capture was asked for before.");
  const machine = machines.get(vm);
  const statusAtInstant = await mayBeTaken(machine, entry, request);
  await book.note({ t: "instant-begun", capture });
  try {
    const transact = () => transaction(machine, request, tools);
    const { answer, freeze } = request.freeze
      ? await frozen(tools, machine, request.freeze.deadlineMs, transact)
      : { answer: await transact(), freeze: null };
    const instant: InstantFacts = { ...answer, statusAtInstant, freeze };
    await book.noteAnyway({ t: "taken", capture, instant });
    const taken = book.ledger().captures.get(capture);
    if (taken) tools.announce.capture(captureState(tools, taken));
    return instant;
  } catch (error) {
    if (error instanceof QmpError || !(error instanceof Uncertain))
      await book.noteAnyway({ t: "instant-failed", capture });
    options.log.warn({ err: error, capture, vm }, "the point in time was not taken");
    throw error;
  }
}

/** The transaction was sent and no answer came. */
class Uncertain extends StillpointError {}

async function mayBeTaken(machine: Machine, entry: CaptureEntry, request: InstantRequest): Promise<string> {
  const { status, migrating } = await readStatus(machine.qmp());
  if (machine.state().incarnation !== entry.open.incarnation)
    throw new StillpointError("Conflict", "QEMU was started anew since the capture was planned.");
  if (migrating) throw new StillpointError("OperationNotAllowed", "The virtual machine is being migrated.");
  if (!request.statuses.includes(status))
    throw new StillpointError("OperationNotAllowed", `The virtual machine's run state is '${status}' now.`, {
      remedy: "Retry: its power state has changed since the point was asked for.",
    });
  return status;
}

interface Answer {
  readonly takenAt: string;
  readonly transactionMs: number;
}

async function transaction(machine: Machine, request: InstantRequest, { options }: CaptureTools): Promise<Answer> {
  const { clock } = options;
  const started = clock.monotonicMs();
  try {
    await runStep(machine.qmp(), request.transaction, options);
  } catch (error) {
    if (error instanceof QmpError) throw error;
    throw new Uncertain(
      "HypervisorUnavailable",
      `QEMU did not confirm the point in time: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
  return { takenAt: clock.now().toISOString(), transactionMs: clock.monotonicMs() - started };
}

/** The thaw begins at the latest when this share of the deadline is over. */
const THAW_AT = 0.75;

async function frozen(tools: CaptureTools, machine: Machine, deadlineMs: number, transact: () => Promise<Answer>) {
  const { vm } = machine.place;
  const { clock } = tools.options;
  return withAgent(machine, tools.options, async (agent) => {
    await tools.book.note({ t: "freeze-begun", vm });
    const started = clock.monotonicMs();
    const left = () => Math.max(1, deadlineMs * THAW_AT - (clock.monotonicMs() - started));
    let frozenFilesystems = 0;
    let freezeMs = 0;
    let pending: Promise<Answer> | null = null;
    let inTime = false;
    let thaw: { readonly count: number; readonly ms: number };
    try {
      frozenFilesystems = await agent.freeze(left());
      freezeMs = clock.monotonicMs() - started;
      pending = transact();
      inTime = await settledWithin(pending, left(), clock);
    } finally {
      thaw = await thawTimed(tools, machine, agent);
    }
    const frozenMs = clock.monotonicMs() - started;
    const answer = await pending;
    const enough = frozenFilesystems > 0 && thaw.count >= frozenFilesystems;
    const held = inTime && enough && frozenMs <= deadlineMs;
    const freeze: FreezeFacts = {
      frozenFilesystems,
      thawedFilesystems: thaw.count,
      freezeMs,
      thawMs: thaw.ms,
      frozenMs,
      held,
    };
    return { answer, freeze };
  });
}

async function thawTimed(tools: CaptureTools, machine: Machine, agent: GuestAgent) {
  const { clock } = tools.options;
  const started = clock.monotonicMs();
  const count = await thawNow(tools, machine, agent);
  return { count, ms: clock.monotonicMs() - started };
}

/** Whether the promise came to an answer, good or bad, in time. */
async function settledWithin(work: Promise<unknown>, ms: number, clock: Clock): Promise<boolean> {
  const stop = new AbortController();
  const timer = clock.sleep(ms, stop.signal).then(
    () => false,
    () => false,
  );
  const settled = work.then(
    () => true,
    () => true,
  );
  const inTime = await Promise.race([settled, timer]);
  stop.abort();
  return inTime;
}
