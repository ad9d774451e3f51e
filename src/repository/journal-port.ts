import type { JournalHead, Repository, SealedEntry } from "./types.ts";

/** The shape of the domain's journal port, which this folder must not import. */
export interface JournalPort {
  seal(
    head: JournalHead,
    kind: "collection-put" | "collection-delete" | "commit" | "delete",
    payload: unknown,
  ): SealedEntry;
  publish(entry: SealedEntry): Promise<void>;
}

export function createJournal(repository: Pick<Repository, "sealEntry" | "publishEntry">): JournalPort {
  return {
    seal: (head, kind, payload) => repository.sealEntry(head, kind, payload),
    publish: (entry) => repository.publishEntry(entry),
  };
}
