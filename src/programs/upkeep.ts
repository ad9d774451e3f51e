/** Work nobody asked for by name: giving back the space of deleted points. */
import type { Clock } from "../base/index.ts";
import type { Catalog, Log } from "../domain/index.ts";
import type { CollectReport, ManifestHash, Repository, TreeRef } from "../repository/index.ts";

const FIRST_AFTER_MS = 5 * 60_000;
const EVERY_MS = 60 * 60_000;

/**
 * Collects garbage with everything the catalog needs as roots. The roots are read first and the repository's own open
 * writers are roots too, so a point that commits meanwhile is safe; one that was deleted meanwhile waits for the next run.
 */
export async function collectGarbage(catalog: Catalog, repository: Repository): Promise<CollectReport> {
  const { manifests, trees } = await catalog.read(async (tx) => ({
    manifests: (await tx.liveManifests()).map((live) => live.manifest as ManifestHash),
    trees: (await tx.anchors()).map((anchor) => anchor.tree as TreeRef),
  }));
  return repository.collect({ manifests, trees });
}

/** Runs the collection every hour until stopped. A run that fails is logged and nothing is lost by it. */
export function startUpkeep(
  catalog: Catalog,
  repository: Repository,
  clock: Clock,
  log: Log,
): { stop(): Promise<void> } {
  const stopped = new AbortController();
  const loop = async () => {
    await clock.sleep(FIRST_AFTER_MS, stopped.signal);
    for (;;) {
      try {
        const report = await collectGarbage(catalog, repository);
        log.info({ ...report }, "collected garbage");
      } catch (error) {
        log.warn({ err: error }, "the garbage collection did not end; it is tried again in an hour");
      }
      await clock.sleep(EVERY_MS, stopped.signal);
    }
  };
  const running = loop().catch(() => {});
  return {
    stop: async () => {
      stopped.abort();
      await running;
    },
  };
}
