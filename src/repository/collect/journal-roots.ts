import { journalName } from "../format/journal.ts";
import { damaged } from "../format/object.ts";
import type { Journal } from "../journal.ts";
import type { JournalEntry, ManifestHash } from "../types.ts";

interface LivePoint {
  readonly manifest: ManifestHash;
  readonly collection: string;
}

/**
 * Manifests that the journal has committed and not deleted. A collection keeps them whatever its caller names: a
 * deletion counts when its entry is published, and a catalog brought back from an old copy knows too few points.
 */
export function journalRoots(journal: Journal) {
  const live = new Map<string, LivePoint>();
  let done = 0;
  return async (): Promise<ManifestHash[]> => {
    for await (const entry of journal.readJournal(done + 1)) {
      apply(live, entry);
      done = entry.number;
    }
    return [...live.values()].map((point) => point.manifest);
  };
}

function apply(live: Map<string, LivePoint>, entry: JournalEntry): void {
  const payload = entry.payload as Readonly<Record<string, unknown>>;
  const field = (name: string): string => {
    const value = payload[name];
    if (typeof value !== "string") throw damaged(journalName(entry.number), `its payload has no '${name}'`);
    return value;
  };
  if (entry.kind === "commit")
    live.set(field("point"), {
      manifest: field("manifest") as ManifestHash,
      collection: field("collectionId").toLowerCase(),
    });
  else if (entry.kind === "delete") live.delete(field("point"));
  else if (entry.kind === "collection-delete") {
    const collection = field("collectionId").toLowerCase();
    for (const [uid, point] of live) if (point.collection === collection) live.delete(uid);
  }
}
