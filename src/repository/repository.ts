import { collect } from "./collect/collect.ts";
import type { Condemned } from "./collect/condemned.ts";
import { journalRoots } from "./collect/journal-roots.ts";
import type { Core } from "./core.ts";
import type { Journal } from "./journal.ts";
import { openDiskReader } from "./read/disk-reader.ts";
import { readManifest } from "./read/manifest.ts";
import type { Lock } from "./storage/lock.ts";
import type { CollectReport, Repository } from "./types.ts";
import { verify } from "./verify/verify.ts";
import { pointWriter } from "./write/point-writer.ts";

/** The parts of an open repository behind its contract. */
export function assembleRepository(core: Core, journal: Journal, condemned: Condemned, lock: Lock): Repository {
  let closed = false;
  const journalManifests = journalRoots(journal);
  /** Collections run one after another. */
  let collecting: Promise<unknown> = Promise.resolve();
  return {
    repositoryId: core.key.repositoryId,
    region: core.region,
    beginPoint: async () => pointWriter(core),
    openDisk: (tree) => openDiskReader(core, tree),
    readManifest: (hash) => readManifest(core, hash),
    sealEntry: journal.sealEntry,
    publishEntry: journal.publishEntry,
    readJournal: journal.readJournal,
    journalHead: journal.journalHead,
    collect: (roots) => {
      const next = collecting.then((): Promise<CollectReport> => collect(core, condemned, journalManifests, roots));
      collecting = next.catch(() => {}); // its caller hears of it
      return next;
    },
    verify: (roots, progress) => verify(core, journal, roots, progress),
    close: async () => {
      if (closed) return;
      closed = true;
      try {
        await core.pool.close();
        await core.index.close();
        await core.storage.close();
      } finally {
        lock.release();
      }
    },
  };
}
