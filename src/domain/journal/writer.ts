import { type Probe, StillpointError, withDeadline } from "../../base/index.ts";
import { createKeyedLock } from "../operations/locks.ts";
import type { Catalog, CatalogTx, Journal, Log, RepositoryReads } from "../ports.ts";
import { compareJournals } from "./compare.ts";
import type { Entries, EntryKind } from "./entries.ts";
import { replayJournal } from "./replay.ts";

/** One entry is a few KB and one fsync; a repository that needs longer is away. */
const PUBLISH_TIMEOUT_MS = 60_000;

export type Seal = <K extends EntryKind>(kind: K, payload: Entries[K]) => Promise<void>;

/**
 * The only way to change what the repository's journal accounts for. The journal entry is the commit: a transaction
 * stores change and sealed entry, then the entry is published, then a second transaction says so. Changes go one after
 * another, so entries are published in the order of their numbers, and at most one is stored and not yet published.
 */
export interface JournalWriter {
  /** Throws why nothing may be written, if so. */
  check(): void;
  /** Why nothing may be written; null: all well. */
  readOnly(): StillpointError | null;
  /**
   * `work` changes the catalog and seals its entry (or none, when nothing is to be changed). When this returns, the
   * entry is durable in the repository. When it throws, the transaction either did not happen, or it did and its entry
   * waits to be published by the next `settle`: who must know looks into the catalog.
   */
  append<T>(work: (tx: CatalogTx, seal: Seal) => Promise<T>): Promise<T>;
  /** Compares with the repository (once), publishes what is stored, and finishes the commits it carries. */
  settle(): Promise<void>;
}

export interface JournalWriterDeps {
  readonly catalog: Catalog;
  readonly journal: Journal;
  readonly repository: RepositoryReads;
  readonly log: Log;
  /** Within the transaction that marks an entry as published: what was Committing becomes Succeeded. */
  finishCommits(tx: CatalogTx): Promise<void>;
  readonly probe?: Probe;
}

const NEVER = new AbortController().signal;

export function createJournalWriter(deps: JournalWriterDeps): JournalWriter {
  const { catalog, journal, log } = deps;
  const lock = createKeyedLock();
  let stopped: StillpointError | null = null;
  let compared = false;

  const check = () => {
    if (stopped) throw stopped;
  };
  const stop = (error: StillpointError) => {
    stopped ??= error;
    log.error({ err: error }, "writing to the repository has stopped");
    return error;
  };

  const publishStored = async () => {
    for (const row of await catalog.read((tx) => tx.unpublished())) {
      await deps.probe?.("publish", "before");
      try {
        await withDeadline(PUBLISH_TIMEOUT_MS, "the repository's journal", () => journal.publish(row));
      } catch (error) {
        throw error instanceof StillpointError && error.code === "RepositoryFenced" ? stop(error) : error;
      }
      await deps.probe?.("publish", "after");
      await catalog.transaction(async (tx) => {
        await tx.markPublished(row.number);
        await deps.finishCommits(tx);
      });
      await deps.probe?.("succeed", "after");
    }
  };

  const settle = async () => {
    check();
    if (!compared) {
      await agree(deps, stop);
      compared = true;
    }
    await publishStored();
  };

  return {
    check,
    readOnly: () => stopped,
    settle: () => lock.hold("journal", NEVER, settle),
    append: (work) =>
      lock.hold("journal", NEVER, async () => {
        await settle();
        await deps.probe?.("commit", "before");
        const result = await catalog.transaction((tx) =>
          work(tx, async (kind, payload) => {
            const head = await tx.journalHead();
            if (!head) throw new StillpointError("InternalError", "The catalog has no place in the journal yet.");
            await tx.appendJournal({ ...journal.seal(head, kind, payload), published: false });
          }),
        );
        await deps.probe?.("commit", "after");
        await publishStored();
        return result;
      }),
  };
}

/** Brings catalog and repository to the same head, or stops all writing. */
async function agree(deps: JournalWriterDeps, stop: (error: StillpointError) => StillpointError): Promise<void> {
  const comparison = await compareJournals(deps.catalog, deps.repository);
  switch (comparison.kind) {
    case "equal":
      return;
    case "fresh":
      return deps.catalog.transaction((tx) =>
        tx.appendJournal({ ...comparison.head, bytes: new Uint8Array(0), published: true }),
      );
    case "behind": {
      const replayed = await replayJournal(deps.catalog, deps.repository, comparison.from);
      deps.log.warn({ ...replayed }, "the repository's journal was ahead of the catalog and has been replayed");
      return;
    }
    case "disagree":
      throw stop(comparison.error);
  }
}
