import { StillpointError, type VmUid } from "../base/index.ts";
import { readJobs } from "../hypervisors/qemu/index.ts";
import { type CaptureTools, captureState, capturesOf, needsQemu } from "./entries.ts";
import type { CaptureEntry } from "./ledger.ts";
import type { Machine } from "./machine.ts";
import { quit } from "./power.ts";
import type { CaptureId, QmpStep } from "./protocol.ts";
import { removeCaptureFolder } from "./scratch.ts";
import { runAllSteps } from "./steps.ts";

/** The three ways in which a capture ends. All are repeatable and go on after a restart of the guard. */
export interface Endings {
  /** Undoes the capture; resolves when that is done, or was put off because QEMU is out of reach. Never rejects. */
  giveUp(capture: CaptureId, reason: string): Promise<void>;
  /** The VM's process is gone, and with it everything of its captures but the files. */
  lose(vm: VmUid, reason: string): Promise<void>;
  /** The orderly end. Rejects when a step failed; it is then repeated by the caller or after a restart. */
  close(capture: CaptureId, steps: readonly QmpStep[]): Promise<void>;
  /** Goes on with whatever was put off. */
  resume(): Promise<void>;
}

const ATTEMPTS = 5;

export function createEndings(tools: CaptureTools): Endings {
  const { options, book, machines, announce } = tools;
  const attempts = new Map<CaptureId, number>();

  const entryOf = (capture: CaptureId) => book.ledger().captures.get(capture);

  function announceEntry(capture: CaptureId): void {
    const entry = entryOf(capture);
    if (entry) announce.capture(captureState(tools, entry));
  }

  async function giveUp(capture: CaptureId, reason: string): Promise<void> {
    const entry = entryOf(capture);
    if (!entry || entry.closing) return;
    if (entry.phase !== "given-up" && entry.phase !== "lost") {
      options.log.warn({ capture, vm: entry.open.vm, reason }, "giving a capture up");
      await book.noteAnyway({ t: "ending", capture, phase: "given-up", reason });
      announceEntry(capture);
    }
    await undo(capture);
  }

  async function undo(capture: CaptureId): Promise<void> {
    const vm = entryOf(capture)?.open.vm;
    if (vm === undefined) return;
    const machine = machines.find(vm);
    await (machine?.exclusively ?? ((work) => work()))(async () => {
      const entry = entryOf(capture);
      if (!entry || entry.undone || entry.closing) return;
      try {
        if (machine && inSameProcess(machine, entry)) await undoInQemu(machine, entry);
        await removeCaptureFolder(options, capture);
        await book.noteAnyway({ t: "ended", capture });
        attempts.delete(capture);
      } catch (error) {
        tools.repeated(capture, "a capture could not be undone yet", error);
      }
    });
    await quitIfDue(vm).catch((error) => tools.repeated(vm, "a virtual machine is not ended yet", error));
  }

  async function undoInQemu(machine: Machine, entry: CaptureEntry): Promise<void> {
    const { capture, giveUp: steps } = entry.open;
    const qmp = machine.qmp();
    const which = entry.undoing ?? ((await wasTaken(machine, entry)) ? "after" : "before");
    if (entry.undoing === null) await book.noteAnyway({ t: "undoing", capture, which });
    const failure = await runAllSteps(qmp, steps[which], options);
    await goOnAfterIoError(machine, entry);
    if (failure !== null) {
      failedOnce(entry, "undoing", failure);
      const reason = `${entry.reason}; not undone: ${failure}`;
      await book.noteAnyway({ t: "ending", capture, phase: "given-up", reason });
    }
    if (isLast(entry)) await tools.nbd.stop(machine);
  }

  /** Throws so that it is tried again; but a step that fails for good must not keep a VM from ever ending. */
  function failedOnce(entry: CaptureEntry, what: string, failure: string): void {
    const { capture, vm } = entry.open;
    const count = (attempts.get(capture) ?? 0) + 1;
    attempts.set(capture, count);
    options.log.error({ capture, vm, failure, count }, `${what} a capture met errors`);
    if (count < ATTEMPTS) throw new StillpointError("InternalError", `The ${what} of the capture failed: ${failure}`);
    attempts.delete(capture);
  }

  async function wasTaken(machine: Machine, entry: CaptureEntry): Promise<boolean> {
    if (entry.instant) return true;
    // A transaction is all or nothing: one job of ours proves it happened.
    const jobs = new Set((await readJobs(machine.qmp())).map((job) => job.id));
    return entry.open.jobs.some((job) => jobs.has(job));
  }

  /** A guest that our fleece has stopped goes on; one that stood so before the point stays as it was. */
  async function goOnAfterIoError(machine: Machine, entry: CaptureEntry): Promise<void> {
    if (!entry.instant || entry.instant.statusAtInstant === "io-error") return;
    if ((await machine.refresh()) !== "io-error") return;
    await machine.qmp().execute("cont");
    await machine.refresh();
  }

  function isLast(entry: CaptureEntry): boolean {
    return !capturesOf(book, entry.open.vm).some(
      (other) => other.open.capture !== entry.open.capture && needsQemu(other),
    );
  }

  async function lose(vm: VmUid, reason: string): Promise<void> {
    for (const entry of capturesOf(book, vm)) {
      const { capture } = entry.open;
      if (entry.undone || entry.phase === "lost") continue;
      if (entry.phase !== "given-up") {
        await book.noteAnyway({ t: "ending", capture, phase: "lost", reason: `QEMU is gone (${reason})` });
        announceEntry(capture);
      }
      await undo(capture);
    }
    await tools.nbd.forget(vm);
  }

  async function close(capture: CaptureId, steps: readonly QmpStep[]): Promise<void> {
    const before = entryOf(capture);
    if (!before) return;
    if (before.phase === "given-up" && !before.undone) await undo(capture);
    await book.note({ t: "closing", capture, steps });
    await finishClose(capture);
  }

  async function finishClose(capture: CaptureId): Promise<void> {
    const vm = entryOf(capture)?.open.vm;
    if (vm === undefined) return;
    const machine = machines.find(vm);
    await (machine?.exclusively ?? ((work) => work()))(async () => {
      const entry = entryOf(capture);
      if (!entry?.closing) return;
      if (machine && inSameProcess(machine, entry)) {
        const failure = await runAllSteps(machine.qmp(), entry.closing, options);
        if (failure !== null) failedOnce(entry, "closing", failure);
        if (isLast(entry)) await tools.nbd.stop(machine);
      }
      await removeCaptureFolder(options, capture);
      await book.note({ t: "closed", capture });
    });
    await quitIfDue(vm).catch((error) => tools.repeated(vm, "a virtual machine is not ended yet", error));
  }

  /** False when the process that the capture was taken in is gone. Throws when nobody knows. */
  function inSameProcess(machine: Machine, entry: CaptureEntry): boolean {
    if (entry.phase === "lost" || machine.state().process === "down") return false;
    machine.qmp();
    return machine.state().incarnation === entry.open.incarnation;
  }

  async function quitIfDue(vm: VmUid): Promise<void> {
    const machine = machines.find(vm);
    if (!machine || !book.ledger().quitting.has(vm) || capturesOf(book, vm).some(needsQemu)) return;
    await machine.exclusively(async () => {
      if (!book.ledger().quitting.has(vm)) return;
      await quit(machine, options);
      await book.noteAnyway({ t: "quitting", vm, quitting: false });
      machine.set({ quitting: false });
    });
  }

  async function resume(): Promise<void> {
    for (const entry of book.ledger().captures.values()) {
      const { capture } = entry.open;
      if (entry.closing)
        await finishClose(capture).catch((error) => tools.repeated(capture, "a capture is not closed yet", error));
      else if ((entry.phase === "given-up" || entry.phase === "lost") && !entry.undone) await undo(capture);
    }
    for (const vm of book.ledger().quitting)
      await quitIfDue(vm).catch((error) => tools.repeated(vm, "a virtual machine is not ended yet", error));
  }

  return { giveUp, lose, close, resume };
}
