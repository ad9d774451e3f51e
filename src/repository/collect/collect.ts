import { join } from "node:path";
import { bytes, StillpointError } from "../../base/index.ts";
import { assertWritable, type Core } from "../core.ts";
import { manifestName } from "../format/manifest.ts";
import { isDamage } from "../format/object.ts";
import { packName, SLOT_BYTES } from "../format/pack.ts";
import { type Pack, slotId } from "../index/packs.ts";
import { readManifest } from "../read/manifest.ts";
import type { CollectReport, ManifestHash, PointManifest, TreeRef } from "../types.ts";
import type { Condemned } from "./condemned.ts";
import { BUCKETS, hasKey, IdBuckets, idKey } from "./id-buckets.ts";
import { packsWithLiveIds } from "./live-packs.ts";
import { treeMarker } from "./mark.ts";

export interface CollectRoots {
  readonly manifests: readonly ManifestHash[];
  readonly trees: readonly TreeRef[];
}

/**
 * One collection: mark from the roots, condemn packs without a live id, sweep those that an earlier collection
 * condemned, that are dead still, and that no writer of that time can have used. It stops with an error, and without
 * having condemned anything, when one node that is alive cannot be read: what hangs below it is unknown.
 *
 * Why a new point cannot lose what an old one is deleted under (the schedule of PSA-2025-00019-1): a writer pins its
 * anchor and every pack it finds a chunk in, in the step in which it decides not to store it; the pins are looked at
 * in the very step that condemns; a condemned pack is unknown to writers; and it is marked again before it is swept.
 */
export async function collect(
  core: Core,
  condemned: Condemned,
  journalManifests: () => Promise<readonly ManifestHash[]>,
  roots: CollectRoots,
): Promise<CollectReport> {
  assertWritable(core);
  await core.index.settle();
  const number = core.pins.beginCollection();
  const live = new IdBuckets(join(core.cacheDir, "tmp"));
  try {
    const manifests = new Set<ManifestHash>([...roots.manifests, ...(await journalManifests())]);
    let onId = (id: Buffer) => live.add(id);
    const marker = treeMarker(core, { id: (id) => onId(id) });
    const marked = new Set<TreeRef>();
    const markAll = async (trees: Iterable<TreeRef>) => {
      for (const tree of trees) {
        if (marked.has(tree)) continue;
        marked.add(tree);
        await marker.mark(tree);
      }
    };
    await markAll(roots.trees);
    for (const hash of manifests) await markAll(treesOf(await readManifest(core, hash)));
    await markAll(pinnedTrees(core));
    const alive = await packsWithLiveIds(core.index, live);
    // Trees pinned while the merge ran: few, sharing nearly everything, so their new ids are looked up one by one.
    onId = (id) => {
      live.add(id);
      for (const pack of core.index.candidates(id)) alive.add(pack);
    };
    for (let before = -1; before !== marked.size; ) {
      before = marked.size;
      await markAll([...pinnedTrees(core)]);
    }
    const dead = condemnAndRescue(core, condemned, number, alive);
    const swept = await sweepPacks(core, condemned, dead, live);
    await sweepManifests(core, condemned, number, manifests);
    await condemned.save();
    core.pins.endCollection(number);
    return {
      packsKept: core.packs.size - condemned.packs.size,
      packsCondemned: condemned.packs.size,
      packsSwept: swept.length,
      freedBytes: bytes(swept.reduce((sum, pack) => sum + pack.sizeBytes, 0)),
    };
  } catch (error) {
    if (!isDamage(error)) throw error;
    throw new StillpointError("RepositoryDamaged", `Nothing more was collected: ${(error as Error).message}`, {
      remedy: "Verify the repository; delete the points that cannot be read, or take the disks anew.",
      cause: error,
    });
  } finally {
    live.close();
  }
}

function treesOf(manifest: PointManifest): TreeRef[] {
  const trees = manifest.disks.map((disk) => disk.tree);
  return manifest.nvram ? [...trees, manifest.nvram] : trees;
}

function* pinnedTrees(core: Core): Iterable<TreeRef> {
  for (const pins of core.pins.all()) yield* pins.trees;
}

/** In one step of the event loop: nothing can be pinned between the look at the pins and the condemnation. */
function condemnAndRescue(core: Core, condemned: Condemned, number: number, alive: ReadonlySet<Pack>): Pack[] {
  const sweepable: Pack[] = [];
  const pinned = new Set<string>();
  for (const pins of core.pins.all()) {
    for (const pack of pins.packs) pinned.add(pack.id);
    for (const id of pins.packIds) pinned.add(id);
  }
  for (const pack of core.packs) {
    const since = condemned.packs.get(pack.id);
    if (alive.has(pack) || pinned.has(pack.id)) {
      pack.condemned = false;
      condemned.packs.delete(pack.id);
    } else if (since === undefined) {
      // A pack whose index cannot be read, or whose domain's key is missing, is kept: nobody knows what it holds.
      if (pack.damagedSlots === "all") continue;
      pack.condemned = true;
      condemned.packs.set(pack.id, number);
    } else if (since < number && !core.pins.openSince(since)) sweepable.push(pack);
  }
  return sweepable;
}

/**
 * Deletes the packs, after a last look at each one's own index: a hole in the cache must never cost a live chunk.
 * Returns those deleted; the others are alive again.
 */
async function sweepPacks(core: Core, condemned: Condemned, dead: readonly Pack[], live: IdBuckets): Promise<Pack[]> {
  const holding = await packsHoldingLive(core, dead, live);
  const swept = dead.filter((pack) => !holding.has(pack));
  for (const pack of holding) {
    pack.condemned = false;
    condemned.packs.delete(pack.id);
  }
  for (const pack of swept) {
    await core.storage.delete(packName(pack.id));
    core.packs.delete(pack);
    core.openPacks.forget(pack);
    condemned.packs.delete(pack.id);
  }
  await core.damage.forget(new Set(swept.map((pack) => pack.id)));
  return swept;
}

/** Of the packs, those that alone hold a live id by their own index, or whose index cannot be read. */
async function packsHoldingLive(core: Core, packs: readonly Pack[], live: IdBuckets): Promise<Set<Pack>> {
  const holding = new Set<Pack>();
  const held: { readonly pack: Pack; readonly id: Buffer }[][] = Array.from({ length: BUCKETS }, () => []);
  let count = 0;
  const compare = async () => {
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const entries = held[bucket]?.splice(0) ?? [];
      const sorted = entries.length > 0 ? live.sorted(bucket) : new Float64Array();
      for (const { pack, id } of entries)
        if (!holding.has(pack) && hasKey(sorted, idKey(id)) && !(await core.locator.locate(id, "write")))
          holding.add(pack);
    }
    count = 0;
  };
  for (const pack of packs) {
    try {
      const { index } = await core.openPacks.load(pack);
      for (let slot = 0; slot * SLOT_BYTES < index.slots.length; slot++, count++) {
        const id = slotId(index, slot);
        held[id[0] as number]?.push({ pack, id });
      }
    } catch (error) {
      if (!isDamage(error)) throw error;
      holding.add(pack);
    }
    if (count > COMPARE_AT_ONCE) await compare();
  }
  await compare();
  return holding;
}

/** Ids compared at once with the live ones: bounds memory to about 100 MiB. */
const COMPARE_AT_ONCE = 512 * 1024;

async function sweepManifests(
  core: Core,
  condemned: Condemned,
  number: number,
  live: ReadonlySet<string>,
): Promise<void> {
  const pinned = (hash: string) => [...core.pins.all()].some((pins) => pins.manifests.has(hash));
  const there = new Set<string>();
  for await (const { name } of core.storage.list("manifests/")) {
    const hash = name.slice("manifests/".length);
    there.add(hash);
    const since = condemned.manifests.get(hash);
    if (live.has(hash) || pinned(hash)) condemned.manifests.delete(hash);
    else if (since === undefined) condemned.manifests.set(hash, number);
    else if (since < number && !core.pins.openSince(since)) {
      await core.storage.delete(manifestName(hash));
      condemned.manifests.delete(hash);
    }
  }
  for (const hash of condemned.manifests.keys()) if (!there.has(hash)) condemned.manifests.delete(hash);
}
