import { stat } from "node:fs/promises";
import type { VmUid } from "../base/index.ts";
import { readJobs, readStatus } from "../hypervisors/qemu/index.ts";
import type { QmpEvent } from "../hypervisors/qmp/index.ts";
import type { Endings } from "./endings.ts";
import { type CaptureTools, capturesOf, isActive } from "./entries.ts";
import type { CaptureEntry } from "./ledger.ts";
import type { CaptureId } from "./protocol.ts";
import { exhausted, readSpace } from "./space.ts";

/** Sees that a running capture may go on, and gives it up long before its guest could feel it. */
export interface Watch {
  /** The service has spoken. */
  word(capture: CaptureId): void;
  /** A step set a write threshold on this node: its event ends the capture. */
  threshold(capture: CaptureId, node: string): void;
  /** Looks at everything now; null when all is well. Rejects when QEMU does not answer. */
  problem(entry: CaptureEntry): Promise<string | null>;
  /** An event of QEMU. */
  event(vm: VmUid, event: QmpEvent): void;
  /** The monitor was away, and with it every event: looks at everything. */
  recheck(vm: VmUid): void;
  /** Once a second: what brings no event. */
  tick(): Promise<void>;
}

export function createWatch(tools: CaptureTools, endings: Endings): Watch {
  const { options, book, machines } = tools;
  const lastWordMs = new Map<CaptureId, number>();
  const thresholds = new Map<string, CaptureId>();

  const actives = () => [...book.ledger().captures.values()].filter(isActive);

  function giveUp(capture: CaptureId, reason: string): void {
    endings.giveUp(capture, reason).catch((error) => options.log.error({ err: error, capture }, "giving up failed"));
  }

  function event(vm: VmUid, { event: name, data }: QmpEvent): void {
    const device = String(data["device"] ?? "");
    for (const entry of capturesOf(book, vm).filter(isActive)) {
      const { capture } = entry.open;
      const job = entry.open.jobs.includes(device) && !entry.endedJobs.has(device);
      if (name === "BLOCK_WRITE_THRESHOLD" && thresholds.get(`${vm} ${String(data["node-name"])}`) === capture)
        giveUp(capture, "the guest wrote more during the copy than its scratch file can hold");
      else if (name === "BLOCK_JOB_ERROR" && job) giveUp(capture, `the job ${device} met an error`);
      else if (name === "BLOCK_JOB_CANCELLED" && job)
        giveUp(capture, `the job ${device} was cancelled by somebody else`);
      else if (name === "BLOCK_JOB_COMPLETED" && job && data["error"] !== undefined)
        giveUp(capture, `the job ${device} failed`);
      else if (name === "BLOCK_IO_ERROR" && data["operation"] === "write" && entry.phase !== "open")
        giveUp(capture, "a write of the guest failed, which the copy may have caused");
    }
    // A migration tells nothing of itself but this.
    if (name === "STOP") recheck(vm);
  }

  async function problem(entry: CaptureEntry): Promise<string | null> {
    const machine = machines.get(entry.open.vm);
    const qmp = machine.qmp();
    if (machine.state().incarnation !== entry.open.incarnation) return "QEMU was started anew";
    const { status, migrating } = await readStatus(qmp);
    if (migrating) return "the virtual machine is being migrated";
    if (entry.phase === "taken") {
      if (status === "io-error" && entry.instant?.statusAtInstant !== "io-error")
        return "the virtual machine stopped on an I/O error, which the copy may have caused";
      const jobs = new Map((await readJobs(qmp)).map((job) => [job.id, job]));
      for (const id of entry.open.jobs) {
        if (entry.endedJobs.has(id)) continue;
        const job = jobs.get(id);
        if (!job) return `the job ${id} is gone`;
        if (job.error !== null) return `the job ${id} failed: ${job.error}`;
        if (job.status === "aborting" || job.status === "null") return `the job ${id} is ${job.status}`;
      }
    }
    return await spaceProblem(entry);
  }

  function recheck(vm: VmUid): void {
    for (const { open } of capturesOf(book, vm).filter(isActive))
      machines
        .get(vm)
        .exclusively(async () => {
          const entry = book.ledger().captures.get(open.capture);
          return entry && isActive(entry) ? await problem(entry) : null;
        })
        .then((found) => (found === null ? undefined : giveUp(open.capture, found)))
        .catch((error) => options.log.warn({ err: error, vm }, "a capture could not be looked at"));
  }

  /** The files' sizes say the same as the write thresholds; they also say it when an event was missed. */
  async function spaceProblem(entry: CaptureEntry): Promise<string | null> {
    if (entry.scratch.size === 0) return null;
    if (exhausted(await readSpace(options.captureDir), options.spaceRule))
      return "the capture folder's file system is filling up";
    for (const [name, { request, path }] of entry.scratch) {
      const { size } = await stat(path);
      if (size > (request.kind === "fleece" ? request.reserveBytes / 2 : request.reserveBytes))
        return `the scratch file '${name}' has outgrown its reservation (the guest wrote too much during the copy)`;
    }
    return null;
  }

  async function tick(): Promise<void> {
    const now = options.clock.monotonicMs();
    const live = actives();
    for (const capture of lastWordMs.keys())
      if (!live.some((entry) => entry.open.capture === capture)) lastWordMs.delete(capture);
    for (const [key, capture] of thresholds)
      if (!live.some((entry) => entry.open.capture === capture)) thresholds.delete(key);
    for (const entry of live) {
      const { capture, silenceMs } = entry.open;
      // After a restart of the guard the service gets its whole time again.
      const last = lastWordMs.get(capture) ?? now;
      lastWordMs.set(capture, last);
      const problem =
        now - last > silenceMs ? "the service has been silent for too long" : await spaceProblem(entry).catch(String);
      if (problem !== null) giveUp(capture, problem);
    }
  }

  return {
    word: (capture) => void lastWordMs.set(capture, options.clock.monotonicMs()),
    threshold: (capture, node) => {
      const vm = book.ledger().captures.get(capture)?.open.vm;
      if (vm !== undefined) thresholds.set(`${vm} ${node}`, capture);
    },
    problem,
    event,
    recheck,
    tick,
  };
}
