import type { VmUid } from "../base/index.ts";
import type { JournalRecord } from "./journal.ts";
import type { CaptureId, CaptureOpen, CapturePhase, InstantFacts, QmpStep, ScratchRequest } from "./protocol.ts";

/** A capture as the journal tells it. */
export interface CaptureEntry {
  readonly open: CaptureOpen;
  readonly phase: CapturePhase;
  readonly reason: string | null;
  readonly instant: InstantFacts | null;
  readonly scratch: ReadonlyMap<string, { readonly request: ScratchRequest; readonly path: string }>;
  /** Jobs of `open.jobs` that ended well and were dismissed by a step. */
  readonly endedJobs: ReadonlySet<string>;
  /** Which undoing steps were begun: decided once, for they take away what the decision was made from. */
  readonly undoing: "before" | "after" | null;
  /** Given up, and every undoing step is done (or QEMU is gone). */
  readonly undone: boolean;
  /** The steps of its orderly end, once that has begun: it is then only ever rolled forward. */
  readonly closing: readonly QmpStep[] | null;
}

/** Everything the guard remembers beyond its own life. Immutable: {@link fold} makes the next one. */
export interface Ledger {
  readonly adopted: ReadonlyMap<VmUid, { readonly qmpSocket: string; readonly qgaSocket: string | null }>;
  readonly quitting: ReadonlySet<VmUid>;
  /** Guests that may be frozen. */
  readonly frozen: ReadonlySet<VmUid>;
  readonly captures: ReadonlyMap<CaptureId, CaptureEntry>;
}

export const EMPTY_LEDGER: Ledger = { adopted: new Map(), quitting: new Set(), frozen: new Set(), captures: new Map() };

export function fold(ledger: Ledger, record: JournalRecord): Ledger {
  switch (record.t) {
    case "adopted": {
      const { qmpSocket, qgaSocket } = record;
      return { ...ledger, adopted: new Map(ledger.adopted).set(record.vm, { qmpSocket, qgaSocket }) };
    }
    case "released":
      return { ...ledger, adopted: without(ledger.adopted, record.vm) };
    case "quitting":
      return { ...ledger, quitting: member(ledger.quitting, record.vm, record.quitting) };
    case "freeze-begun":
      return { ...ledger, frozen: member(ledger.frozen, record.vm, true) };
    case "thawed":
      return { ...ledger, frozen: member(ledger.frozen, record.vm, false) };
    case "closed":
      return { ...ledger, captures: without(ledger.captures, record.capture) };
    case "open":
      return { ...ledger, captures: new Map(ledger.captures).set(record.open.capture, opened(record.open)) };
    default: {
      const entry = ledger.captures.get(record.capture);
      if (!entry) return ledger;
      return { ...ledger, captures: new Map(ledger.captures).set(record.capture, advance(entry, record)) };
    }
  }
}

function opened(open: CaptureOpen): CaptureEntry {
  const nothing = { reason: null, instant: null, undoing: null, undone: false, closing: null };
  return { open, phase: "open", ...nothing, scratch: new Map(), endedJobs: new Set() };
}

type Advance = Extract<
  JournalRecord,
  {
    t:
      | "scratch"
      | "instant-begun"
      | "instant-failed"
      | "taken"
      | "job-ended"
      | "ending"
      | "undoing"
      | "ended"
      | "closing";
  }
>;

function advance(entry: CaptureEntry, record: Advance): CaptureEntry {
  switch (record.t) {
    case "scratch": {
      const scratch = new Map(entry.scratch).set(record.scratch.name, { request: record.scratch, path: record.path });
      return { ...entry, scratch };
    }
    case "instant-begun":
      return { ...entry, phase: "instant" };
    case "instant-failed":
      return { ...entry, phase: "open" };
    case "taken":
      return { ...entry, phase: "taken", instant: record.instant };
    case "job-ended":
      return { ...entry, endedJobs: member(entry.endedJobs, record.job, true) };
    case "ending":
      return { ...entry, phase: record.phase, reason: record.reason };
    case "undoing":
      return { ...entry, undoing: record.which };
    case "ended":
      return { ...entry, undone: true };
    case "closing":
      return { ...entry, closing: record.steps };
  }
}

/** The fewest records that fold to the same ledger: what a compacted journal holds. */
export function recordsOf(ledger: Ledger): readonly JournalRecord[] {
  return [
    ...[...ledger.adopted].map(([vm, place]): JournalRecord => ({ t: "adopted", vm, ...place })),
    ...[...ledger.quitting].map((vm): JournalRecord => ({ t: "quitting", vm, quitting: true })),
    ...[...ledger.frozen].map((vm): JournalRecord => ({ t: "freeze-begun", vm })),
    ...[...ledger.captures.values()].flatMap(recordsOfCapture),
  ];
}

function recordsOfCapture(entry: CaptureEntry): readonly JournalRecord[] {
  const { capture } = entry.open;
  const records: JournalRecord[] = [{ t: "open", open: entry.open }];
  for (const { request, path } of entry.scratch.values())
    records.push({ t: "scratch", capture, scratch: request, path });
  if (entry.phase === "instant") records.push({ t: "instant-begun", capture });
  if (entry.instant) records.push({ t: "taken", capture, instant: entry.instant });
  for (const job of entry.endedJobs) records.push({ t: "job-ended", capture, job });
  if (entry.phase === "given-up" || entry.phase === "lost")
    records.push({ t: "ending", capture, phase: entry.phase, reason: entry.reason ?? "" });
  if (entry.undoing) records.push({ t: "undoing", capture, which: entry.undoing });
  if (entry.undone) records.push({ t: "ended", capture });
  if (entry.closing) records.push({ t: "closing", capture, steps: entry.closing });
  return records;
}

function without<K, V>(map: ReadonlyMap<K, V>, key: K): ReadonlyMap<K, V> {
  const copy = new Map(map);
  copy.delete(key);
  return copy;
}

function member<T>(set: ReadonlySet<T>, value: T, present: boolean): ReadonlySet<T> {
  const copy = new Set(set);
  if (present) copy.add(value);
  else copy.delete(value);
  return copy;
}
