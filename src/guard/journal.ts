import { type FileHandle, mkdir, open, readFile, rename, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import type { VmUid } from "../base/index.ts";
import { replaceFile, StillpointError, syncDirectory } from "../base/index.ts";
import { createMutex } from "./mutex.ts";
import type { CaptureId, CaptureOpen, InstantFacts, QmpStep, ScratchRequest } from "./protocol.ts";

/**
 * What the guard must know after its own death, in the order it happened. Each record is durable before the thing it
 * announces is done; `instant-begun` without `taken` or `instant-failed` means: look at QEMU.
 */
export type JournalRecord =
  | { readonly t: "adopted"; readonly vm: VmUid; readonly qmpSocket: string; readonly qgaSocket: string | null }
  | { readonly t: "released"; readonly vm: VmUid }
  | { readonly t: "quitting"; readonly vm: VmUid; readonly quitting: boolean }
  | { readonly t: "open"; readonly open: CaptureOpen }
  | { readonly t: "scratch"; readonly capture: CaptureId; readonly scratch: ScratchRequest; readonly path: string }
  | { readonly t: "instant-begun"; readonly capture: CaptureId }
  | { readonly t: "instant-failed"; readonly capture: CaptureId }
  | { readonly t: "freeze-begun"; readonly vm: VmUid }
  | { readonly t: "thawed"; readonly vm: VmUid }
  | { readonly t: "taken"; readonly capture: CaptureId; readonly instant: InstantFacts }
  | { readonly t: "job-ended"; readonly capture: CaptureId; readonly job: string }
  | { readonly t: "ending"; readonly capture: CaptureId; readonly phase: "given-up" | "lost"; readonly reason: string }
  | { readonly t: "undoing"; readonly capture: CaptureId; readonly which: "before" | "after" }
  | { readonly t: "ended"; readonly capture: CaptureId }
  | { readonly t: "closing"; readonly capture: CaptureId; readonly steps: readonly QmpStep[] }
  | { readonly t: "closed"; readonly capture: CaptureId };

export interface Journal {
  /**
   * Durable when it returns; `counts` runs as soon as it is, before the next record or replacement. After one failed
   * write or fsync it refuses for good: a second fsync can lie.
   */
  append(record: JournalRecord, counts: () => void): Promise<void>;
  /** Bytes appended since it was opened or replaced. */
  appendedBytes(): number;
  /** Replaces everything, durably, by the records that `now` gives when its turn has come. */
  replace(now: () => readonly JournalRecord[]): Promise<void>;
  close(): Promise<void>;
}

export interface OpenedJournal {
  readonly journal: Journal;
  /** Whether lines before the last were unreadable; a copy of the file is then kept beside it. */
  readonly damaged: boolean;
}

/**
 * Reads the journal, lets `compact` say which records are still needed, and replaces the file by those. A torn last
 * line is an append that never happened.
 */
export async function openJournal(
  path: string,
  compact: (records: readonly JournalRecord[]) => readonly JournalRecord[],
): Promise<OpenedJournal> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  const { records, damaged } = parseJournal(text);
  if (damaged) await keepCopy(path, text);
  await replaceFile(path, compact(records).map(encodeRecord).join(""));
  return { journal: appender(path, await open(path, "a", 0o600)), damaged };
}

export function encodeRecord(record: JournalRecord): string {
  const json = JSON.stringify(record);
  return `${checksum(json)} ${json}\n`;
}

/** Unreadable lines are left out: the rest must still be acted upon, for guests may depend on it. */
export function parseJournal(text: string): { readonly records: readonly JournalRecord[]; readonly damaged: boolean } {
  const lines = text.split("\n");
  const tail = lines.pop() ?? "";
  const parsed = lines.map(decodeRecord);
  // A last line with its end but without its sense is torn too: its blocks reached the disk in another order.
  const damaged = parsed.slice(0, -1).includes(null) || (tail !== "" && parsed.at(-1) === null);
  return { records: parsed.filter((record) => record !== null), damaged };
}

function decodeRecord(line: string): JournalRecord | null {
  const json = line.slice(9);
  if (line[8] !== " " || line.slice(0, 8) !== checksum(json)) return null;
  return JSON.parse(json) as JournalRecord;
}

function checksum(json: string): string {
  return crc32(json).toString(16).padStart(8, "0");
}

function appender(path: string, first: FileHandle): Journal {
  const exclusively = createMutex();
  let handle = first;
  let broken: unknown = null;
  let appendedBytes = 0;

  /** One failure breaks it for good. */
  function writing(work: () => Promise<void>): Promise<void> {
    return exclusively(async () => {
      if (broken) throw refuse(path, broken);
      try {
        await work();
      } catch (error) {
        broken = error;
        throw refuse(path, error);
      }
    });
  }

  return {
    append: (record, counts) =>
      writing(async () => {
        const line = encodeRecord(record);
        await handle.appendFile(line);
        await handle.datasync();
        appendedBytes += Buffer.byteLength(line);
        counts();
      }),
    appendedBytes: () => appendedBytes,
    replace: (now) =>
      writing(async () => {
        await replaceFile(path, now().map(encodeRecord).join(""));
        const former = handle;
        handle = await open(path, "a", 0o600);
        appendedBytes = 0;
        await former.close();
      }),
    close: () => exclusively(() => handle.close()),
  };
}

function refuse(path: string, cause: unknown): StillpointError {
  return new StillpointError("InternalError", `The guard's journal ${path} can no longer be written.`, {
    cause,
    remedy: "Look at its file system, then restart stillpoint-guard.",
  });
}

async function keepCopy(path: string, text: string): Promise<void> {
  const copy = `${path}.damaged`;
  await writeFile(`${copy}.tmp`, text, { mode: 0o600 });
  await rename(`${copy}.tmp`, copy);
  await syncDirectory(dirname(path));
}
