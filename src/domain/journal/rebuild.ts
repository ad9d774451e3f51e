import { type ResourceId, StillpointError } from "../../base/index.ts";
import type { Catalog, RepositoryReads } from "../ports.ts";
import { replayJournal } from "./replay.ts";

export interface RebuildReport {
  readonly entries: number;
  readonly subscriptions: readonly string[];
  readonly points: number;
  /** Points that the journal knows and whose manifests cannot be read: they are listed, and cannot be restored. */
  readonly unreadable: readonly { readonly pointId: ResourceId; readonly problem: string }[];
  /** Deleted points whose manifests are (again, or still) in the repository. They stay deleted. */
  readonly notResurrected: readonly ResourceId[];
  /** What a repository does not hold, for the operator. */
  readonly notRebuilt: readonly string[];
}

const NOT_REBUILT = ["virtual machines and disks", "hosts", "operations", "tokens"] as const;

/**
 * Fills an empty catalog from the repository's journal: subscriptions, resource groups that hold collections,
 * collections with their tags, points and their records. Conflict when the catalog is not empty: nothing is merged.
 * A rebuild that was interrupted goes on from where it ended.
 */
export async function rebuildCatalog(deps: {
  readonly catalog: Catalog;
  readonly repository: RepositoryReads;
}): Promise<RebuildReport> {
  const { catalog, repository } = deps;
  const from = await startingPoint(catalog);
  await catalog.transaction((tx) => tx.putSetting(REBUILDING, "yes"));
  const { entries, deleted } = await replayJournal(catalog, repository, from);
  const live = await catalog.read((tx) => tx.liveManifests());
  const unreadable: { pointId: ResourceId; problem: string }[] = [];
  for (const { pointId, manifest } of live) {
    const problem = await readProblem(repository, manifest);
    if (problem !== null) unreadable.push({ pointId, problem });
  }
  const notResurrected: ResourceId[] = [];
  for (const { pointId, manifest } of deleted)
    if ((await readProblem(repository, manifest)) === null) notResurrected.push(pointId);
  await catalog.transaction((tx) => tx.putSetting(REBUILDING, null));
  const subscriptions = await catalog.read((tx) => tx.subscriptions());
  return { entries, subscriptions, points: live.length, unreadable, notResurrected, notRebuilt: NOT_REBUILT };
}

const REBUILDING = "catalog-rebuilding";

async function startingPoint(catalog: Catalog): Promise<number> {
  const { head, goesOn, used } = await catalog.read(async (tx) => ({
    head: await tx.journalHead(),
    goesOn: (await tx.setting(REBUILDING)) !== null,
    used: (await tx.subscriptions()).length > 0,
  }));
  if (!goesOn && (head !== null || used))
    throw new StillpointError("Conflict", "This catalog is not empty, so it is not rebuilt.", {
      remedy: "Move it away and run the rebuild on a new one.",
    });
  return (head?.number ?? 0) + 1;
}

async function readProblem(repository: RepositoryReads, manifest: string): Promise<string | null> {
  try {
    await repository.readManifest(manifest);
    return null;
  } catch (error) {
    if (error instanceof StillpointError) return error.message;
    throw error;
  }
}
