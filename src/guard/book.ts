import { join } from "node:path";
import type { GuardOptions } from "./context.ts";
import { type Journal, type JournalRecord, openJournal } from "./journal.ts";
import { EMPTY_LEDGER, fold, type Ledger, recordsOf } from "./ledger.ts";

/** A capture takes about 10 KiB of journal. */
const COMPACT_BYTES = 4 * 1024 * 1024;

/** The ledger with the journal under it: what is noted is durable, and then it counts. */
export interface Book {
  ledger(): Ledger;
  /** Durable when it returns; on failure the ledger is as before. */
  note(record: JournalRecord): Promise<void>;
  /**
   * For undoing and thawing, which a broken journal must not hold up: counts in any case, durable if that is possible.
   * What is lost by that is repeated after a restart, and every undoing step may be repeated.
   */
  noteAnyway(record: JournalRecord): Promise<void>;
  close(): Promise<void>;
}

export async function openBook(options: GuardOptions): Promise<Book> {
  const path = join(options.dataDir, "guard", "journal");
  let ledger = EMPTY_LEDGER;
  const { journal, damaged } = await openJournal(path, (records) => {
    ledger = records.reduce(fold, EMPTY_LEDGER);
    return recordsOf(ledger);
  });
  if (damaged)
    options.log.error({ path: `${path}.damaged` }, "the guard's journal had unreadable lines; a copy is kept");
  return bookOver(
    journal,
    () => ledger,
    (next) => (ledger = next),
    options,
  );
}

function bookOver(journal: Journal, get: () => Ledger, set: (next: Ledger) => void, options: GuardOptions): Book {
  async function note(record: JournalRecord): Promise<void> {
    options.probe(`journal-${record.t}`, "before");
    await journal.append(record, () => set(fold(get(), record)));
    options.probe(`journal-${record.t}`, "after");
    if (journal.appendedBytes() > COMPACT_BYTES) await journal.replace(() => recordsOf(get()));
  }
  return {
    ledger: get,
    note,
    noteAnyway: async (record) => {
      try {
        await note(record);
      } catch (error) {
        options.log.error({ err: error, record: record.t }, "the journal could not be written; going on without it");
        // Folding twice (it was durable, and the compaction after it failed) changes nothing.
        set(fold(get(), record));
      }
    },
    close: () => journal.close(),
  };
}
