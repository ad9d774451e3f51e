import { idKey } from "../collect/id-buckets.ts";
import { type Core, domainOf } from "../core.ts";
import { childId, FAN_OUT, isZeroId, rootLevel } from "../format/node.ts";
import { IdTable } from "../index/id-table.ts";
import { rootId } from "../read/nodes.ts";
import type { DamageReport, TreeRef } from "../types.ts";
import type { Broken } from "./objects.ts";
import { idName } from "./packs.ts";

/** A tree that a point needs, and the disk it is. */
export interface NeededTree {
  readonly pointId: string;
  readonly diskUid: string;
  readonly tree: TreeRef;
}

/** Needed ids that no readable pack holds, by bucket. */
export type MissingKeys = ReadonlyMap<number, ReadonlySet<number>>;

function isMissing(missing: MissingKeys, id: Buffer): boolean {
  return missing.get(id[0] as number)?.has(idKey(id)) ?? false;
}

/** Ids in damaged frames → the number of the report. An id may have a good copy elsewhere. */
export type BadIds = Map<string, number>;

/**
 * Which points and disks each report breaks. Only walks when something needed is missing; each shared subtree is
 * judged once. Ids that are in no pack at all make up one more report.
 */
export async function whatBreaks(
  core: Core,
  trees: readonly NeededTree[],
  bad: BadIds,
  missing: MissingKeys,
  broken: Broken[],
): Promise<ReadonlyMap<number, DamageReport["breaks"]>> {
  const breaks = new Map<number, { pointId: string; diskUid: string }[]>();
  if (missing.size === 0) return breaks;
  let nowhere = -1;
  const reportOf = (id: Buffer): number | null => {
    if (!isMissing(missing, id)) return null;
    const known = bad.get(idName(id));
    if (known !== undefined) return known;
    if (nowhere < 0) nowhere = broken.push({ object: "packs/", problem: "" }) - 1;
    gone.add(idName(id));
    return nowhere;
  };
  const gone = new Set<string>();
  const judge = treeJudge(core, reportOf);
  for (const { pointId, diskUid, tree } of trees)
    for (const report of await judge(tree)) {
      const list = breaks.get(report) ?? [];
      list.push({ pointId, diskUid });
      breaks.set(report, list);
    }
  if (nowhere >= 0) broken[nowhere] = { object: "packs/", problem: `${gone.size} needed objects are in no pack` };
  return breaks;
}

type Reports = ReadonlySet<number>;

function treeJudge(core: Core, reportOf: (id: Buffer) => number | null): (tree: TreeRef) => Promise<Reports> {
  const none: Reports = new Set();
  /** Node → place in `sets`; most are 0. */
  const judged = new IdTable();
  const sets: Reports[] = [none];

  async function node(tree: TreeRef, id: Buffer, level: number): Promise<Reports> {
    const before = judged.find(id);
    if (before !== undefined) return sets[before] as Reports;
    const own = reportOf(id);
    const found = own === null ? await children(tree, id, level) : new Set([own]);
    judged.add(id, found.size === 0 ? 0 : sets.push(found) - 1);
    return found;
  }

  async function children(tree: TreeRef, id: Buffer, level: number): Promise<Reports> {
    const opened = await core.nodes.node(domainOf(core, tree.domain), id, level);
    const found = new Set<number>();
    for (let slot = 0; slot < FAN_OUT; slot++) {
      const child = childId(opened, slot);
      if (isZeroId(child)) continue;
      if (level > 0) for (const report of await node(tree, child, level - 1)) found.add(report);
      else {
        const report = reportOf(child);
        if (report !== null) found.add(report);
      }
    }
    return found;
  }

  return async (tree) => {
    const root = rootId(tree);
    return root ? node(tree, root, rootLevel(tree.sizeBytes)) : none;
  };
}
