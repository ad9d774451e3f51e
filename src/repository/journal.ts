import { type Clock, type Random, StillpointError } from "../base/index.ts";
import type { RepositoryKey } from "../keys/index.ts";
import { entryHash, JOURNAL_START, journalName, openEntry, sealEntry } from "./format/journal.ts";
import { damaged, NO_DOMAIN } from "./format/object.ts";
import { openSealed, sealObject } from "./format/sealed.ts";
import type { Storage } from "./storage/storage.ts";
import type { JournalEntry, JournalHead, JournalKind, SealedEntry } from "./types.ts";

const FOLDER = "journal/";
const CHECKPOINTS = "checkpoints/";
/** After so many entries a checkpoint tells where the chain stood: a start then reads no more than these. */
export const CHECKPOINT_EVERY = 1000;

type Entry = JournalEntry & { readonly hash: string };

export interface JournalOptions {
  readonly storage: Storage;
  readonly key: RepositoryKey;
  readonly epoch: number;
  readonly clock: Clock;
  readonly random: Random;
}

/** The journal of a repository. See the contract of each member in types.ts. */
export interface Journal {
  sealEntry(head: JournalHead, kind: JournalKind, payload: unknown): SealedEntry;
  publishEntry(entry: SealedEntry): Promise<void>;
  readJournal(from?: number): AsyncIterable<Entry>;
  journalHead(): Promise<JournalHead>;
  /** One entry, whether or not it follows another. Throws RepositoryDamaged. */
  entryAt(number: number): Promise<Entry>;
  lastNumber(): Promise<number>;
}

export function openJournal(options: JournalOptions): Journal {
  const { storage, key, epoch, clock, random } = options;
  const secret = key.secret;
  const { repositoryId } = key;

  async function publishEntry(entry: SealedEntry): Promise<void> {
    const name = journalName(entry.number);
    if (entryHash(entry.bytes) !== entry.hash) throw damaged(name, "the entry to be published is not the one sealed");
    const outcome = await storage.create(name, entry.bytes);
    if (outcome === "other")
      throw new StillpointError("RepositoryFenced", `Journal entry ${entry.number} was written by somebody else.`, {
        target: name,
        remedy: "Another service writes to this repository: stop one of them, then rebuild this catalog.",
      });
    if (entry.number % CHECKPOINT_EVERY === 0) await writeCheckpoint(entry);
  }

  /** Not part of the chain, and nothing is lost without it. */
  async function writeCheckpoint(entry: SealedEntry): Promise<void> {
    const name = checkpointName(entry.number);
    const bytes = sealObject(secret, random.bytes(32), name, {
      header: { kind: "checkpoint", epoch, repositoryId, domain: NO_DOMAIN },
      clear: Buffer.alloc(0),
      content: Buffer.from(JSON.stringify({ number: entry.number, hash: entry.hash })),
    });
    await storage.create(name, bytes);
  }

  async function numbers(folder: string): Promise<number[]> {
    const found: number[] = [];
    for await (const { name } of storage.list(folder)) {
      const number = name.slice(folder.length);
      if (/^[0-9]{12}$/.test(number)) found.push(Number(number)); // other files are not ours
    }
    return found.sort((a, b) => a - b);
  }

  async function entryAt(number: number): Promise<Entry> {
    const name = journalName(number);
    const bytes = await storage.read(name);
    if (!bytes) throw damaged(name, "it is missing although later entries are there");
    return openEntry(secret, repositoryId, number, bytes);
  }

  /** Entries after `start`, each naming the one before. */
  async function* chain(start: JournalHead, last: number): AsyncIterable<Entry> {
    let previous = start.hash;
    for (let number = start.number + 1; number <= last; number++) {
      const entry = await entryAt(number);
      if (entry.previousHash !== previous) throw damaged(journalName(number), "it does not follow the entry before it");
      previous = entry.hash;
      yield entry;
    }
  }

  async function lastNumber(): Promise<number> {
    return (await numbers(FOLDER)).at(-1) ?? 0;
  }

  /** The newest checkpoint whose entry is still the one it names. */
  async function newestCheckpoint(): Promise<JournalHead> {
    for (const number of (await numbers(CHECKPOINTS)).reverse()) {
      const name = checkpointName(number);
      const bytes = await storage.read(name);
      if (!bytes) continue;
      const { content } = openSealed(secret, bytes, name, { kind: "checkpoint", repositoryId });
      const head = JSON.parse(content.toString("utf8")) as JournalHead;
      if ((await entryAt(number)).hash !== head.hash)
        throw damaged(journalName(number), "it is not the entry of its checkpoint");
      return head;
    }
    return JOURNAL_START;
  }

  return {
    entryAt,
    lastNumber,
    sealEntry: (head, kind, payload) =>
      sealEntry(secret, repositoryId, random.bytes(32), head, { kind, payload, at: clock.now().toISOString(), epoch }),
    publishEntry,
    readJournal: async function* (from = 1) {
      const before = from > 1 ? await entryAt(from - 1) : JOURNAL_START;
      yield* chain(before, await lastNumber());
    },
    journalHead: async () => {
      let head = await newestCheckpoint();
      for await (const { number, hash } of chain(head, await lastNumber())) head = { number, hash };
      return head;
    },
  };
}

function checkpointName(number: number): string {
  return `${CHECKPOINTS}${String(number).padStart(12, "0")}`;
}
