import { StillpointError } from "../../base/index.ts";
import type { Catalog, RepositoryReads } from "../ports.ts";
import { isDataEntry } from "./entries.ts";

/** How catalog and repository stand to each other. */
export type Comparison =
  | { readonly kind: "equal" }
  /** The repository goes on where the catalog ends: entries from that number on are to be replayed. */
  | { readonly kind: "behind"; readonly from: number }
  /** A catalog that has seen no journal yet, and a repository without data: they start together at this head. */
  | { readonly kind: "fresh"; readonly head: { readonly number: number; readonly hash: string } }
  | { readonly kind: "disagree"; readonly error: StillpointError };

/**
 * Compares the catalog's journal with the repository's. Rows that were stored but perhaps never published are no
 * disagreement: the repository may or may not have them yet.
 * Throws what the repository throws when it cannot be read.
 */
export async function compareJournals(catalog: Catalog, repository: RepositoryReads): Promise<Comparison> {
  const theirs = await repository.journalHead();
  const { ours, oursAtTheirs, firstUnpublished } = await catalog.read(async (tx) => ({
    ours: await tx.journalHead(),
    oursAtTheirs: await tx.journalHash(theirs.number),
    firstUnpublished: (await tx.unpublished())[0]?.number ?? null,
  }));
  if (!ours) return (await holdsData(repository)) ? disagree(EMPTY_CATALOG) : { kind: "fresh", head: theirs };
  if (theirs.number > ours.number) {
    for await (const entry of repository.readJournal(ours.number + 1))
      return entry.previousHash === ours.hash ? { kind: "behind", from: ours.number + 1 } : disagree(DIFFERENT);
  }
  if (oursAtTheirs !== null && oursAtTheirs !== theirs.hash) return disagree(DIFFERENT);
  const published = firstUnpublished === null ? ours.number : firstUnpublished - 1;
  return theirs.number < published ? disagree(SHORTER) : { kind: "equal" };
}

async function holdsData(repository: RepositoryReads): Promise<boolean> {
  for await (const entry of repository.readJournal()) if (isDataEntry(entry.kind)) return true;
  return false;
}

const EMPTY_CATALOG = "The repository holds restore points, but this catalog is new and knows none of them.";
const DIFFERENT = "The repository's journal differs from what this catalog wrote: another service wrote to it.";
const SHORTER = "The repository's journal is shorter than what this catalog wrote: entries were lost or put back.";

function disagree(message: string): Comparison {
  const remedy =
    message === EMPTY_CATALOG
      ? "Run 'stillpoint catalog rebuild', or put the catalog's backup back."
      : "Nothing is written until this is settled: find the service or the backup behind it, or rebuild the catalog.";
  return { kind: "disagree", error: new StillpointError("RepositoryFenced", message, { remedy }) };
}
