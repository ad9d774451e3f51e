import { collect } from "./collect/collect.ts";
import type { Core } from "./core.ts";
import { manifestName, openManifest } from "./format/manifest.ts";
import { damaged } from "./format/object.ts";
import type { Journal } from "./journal.ts";
import { openDiskReader } from "./read/disk-reader.ts";
import type { Lock } from "./storage/lock.ts";
import type { ManifestHash, PointManifest, Repository } from "./types.ts";
import { verify } from "./verify/verify.ts";
import { pointWriter } from "./write/point-writer.ts";

/** The parts of an open repository behind its contract. */
export function assembleRepository(core: Core, journal: Journal, lock: Lock): Repository {
  let closed = false;
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
    collect: (roots) => collect(core, roots),
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

export async function readManifest(core: Core, hash: ManifestHash): Promise<PointManifest> {
  const name = manifestName(hash);
  const bytes = await core.storage.read(name);
  if (!bytes) throw damaged(name, "it is missing");
  return openManifest(core.key.secret, core.key.repositoryId, hash, bytes);
}
