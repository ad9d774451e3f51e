import { join } from "node:path";
import { bytes } from "../../base/index.ts";
import { BUCKETS, hasKey, IdBuckets } from "../collect/id-buckets.ts";
import { treeMarker } from "../collect/mark.ts";
import type { Core } from "../core.ts";
import { isDamage } from "../format/object.ts";
import type { Journal } from "../journal.ts";
import { readManifest } from "../read/manifest.ts";
import type { DamageReport, ManifestHash, VerifyReport } from "../types.ts";
import { type BadIds, type MissingKeys, type NeededTree, whatBreaks } from "./breaks.ts";
import { type Broken, verifySmallObjects } from "./objects.ts";
import { idName, verifyPack } from "./packs.ts";

export interface VerifyRoots {
  readonly points: readonly { readonly pointId: string; readonly manifest: ManifestHash }[];
}

/** In a report, a disk uid that stands for all disks of the point: its manifest cannot be read. */
const EVERY_DISK = "*";
/** The point's UEFI variables. */
const NVRAM = "nvram";

/**
 * Reads every object of the repository and compares every chunk and node with its id; then looks whether everything
 * that the points need is among what was good. Packs first, trees after: a tree is walked over good nodes only.
 */
export async function verify(
  core: Core,
  journal: Journal,
  roots: VerifyRoots,
  progress: (objectsDone: number, objectsTotal: number) => void = () => {},
): Promise<VerifyReport> {
  const folder = join(core.cacheDir, "tmp");
  const good = new IdBuckets(folder);
  const live = new IdBuckets(folder);
  try {
    const small = await verifySmallObjects(core, journal);
    const broken = [...small.broken];
    const packs = [...core.packs];
    const total = small.objects + packs.length;
    let done = small.objects;
    const bad: BadIds = new Map();
    await eachOf(packs, core.pool.workers + 1, async (pack) => {
      await verifyPack(core, pack, {
        good: (id) => good.add(id),
        damaged: (object, problem, ids) => {
          const report = broken.push({ object, problem }) - 1;
          for (const id of ids) bad.set(idName(id), report);
        },
      });
      progress(++done, total);
    });
    const { trees, unreadable } = await neededTrees(core, roots, broken);
    await walkTrees(core, trees, live, (id, problem) => {
      if (!bad.has(idName(id))) bad.set(idName(id), broken.push({ object: `node ${id.toString("hex")}`, problem }) - 1);
    });
    const missing = await missingKeys(live, good);
    const breaks = await whatBreaks(core, trees, bad, missing, broken);
    if (missing.size > 0) await core.damage.reportMissing();
    return {
      objectsRead: total,
      bytesRead: bytes(small.bytes + packs.reduce((sum, pack) => sum + pack.sizeBytes, 0)),
      damage: broken.map(
        (found, index): DamageReport => ({
          ...found,
          breaks: [...(unreadable.get(index) ?? []), ...(breaks.get(index) ?? [])],
        }),
      ),
    };
  } finally {
    good.close();
    live.close();
  }
}

async function neededTrees(core: Core, roots: VerifyRoots, broken: Broken[]) {
  const trees: NeededTree[] = [];
  const unreadable = new Map<number, DamageReport["breaks"]>();
  for (const { pointId, manifest } of roots.points) {
    try {
      const { disks, nvram } = await readManifest(core, manifest);
      for (const disk of disks) trees.push({ pointId, diskUid: disk.diskUid, tree: disk.tree });
      if (nvram) trees.push({ pointId, diskUid: NVRAM, tree: nvram });
    } catch (error) {
      if (!isDamage(error)) throw error;
      const object = `manifests/${manifest}`;
      const known = broken.findIndex((found) => found.object === object);
      const index = known >= 0 ? known : broken.push({ object, problem: (error as Error).message }) - 1;
      unreadable.set(index, [...(unreadable.get(index) ?? []), { pointId, diskUid: EVERY_DISK }]);
    }
  }
  return { trees, unreadable };
}

async function walkTrees(
  core: Core,
  trees: readonly NeededTree[],
  live: IdBuckets,
  unreadable: (id: Buffer, problem: string) => void,
): Promise<void> {
  const marker = treeMarker(core, {
    id: (id) => live.add(id),
    unreadable: (id, _level, error) => {
      if (!isDamage(error)) throw error;
      unreadable(id, (error as Error).message);
    },
  });
  for (const { tree } of trees) await marker.mark(tree);
}

async function missingKeys(live: IdBuckets, good: IdBuckets): Promise<MissingKeys> {
  const missing = new Map<number, Set<number>>();
  for (let bucket = 0; bucket < BUCKETS; bucket++) {
    const there = good.sorted(bucket);
    const lost = live.sorted(bucket).filter((key) => !hasKey(there, key));
    if (lost.length > 0) missing.set(bucket, new Set(lost));
    await new Promise(setImmediate);
  }
  return missing;
}

async function eachOf<T>(items: readonly T[], parallel: number, work: (item: T) => Promise<void>): Promise<void> {
  const left = [...items].reverse();
  const lane = async () => {
    for (let item = left.pop(); item !== undefined; item = left.pop()) await work(item);
  };
  await Promise.all(Array.from({ length: parallel }, lane));
}
