import type { QmpClient } from "../qmp/index.ts";
import { type Json, list, object, optionalText, text } from "./read.ts";

/** Block drivers that pass data through: they stand above a disk's own node. */
const FILTERS = new Set([
  ...["copy-before-write", "copy-on-read", "throttle", "blkdebug", "blklogwrites", "blkverify", "blkreplay"],
  ...["mirror_top", "commit_top", "backup-top", "preallocate", "compress", "snapshot-access", "quorum"],
]);

/** QEMU's block nodes and who stands on whom. */
export interface BlockGraph {
  readonly names: readonly string[];
  /** What `query-named-block-nodes` says of the node. */
  node(name: string): Json | undefined;
  driver(name: string): string;
  /** The node below `name` by its `file`, or else its `backing` edge. */
  below(name: string): string | undefined;
  /** The nodes that stand on `name`. */
  above(name: string): readonly string[];
}

/** Reads the graph. The edges come from a debugging command that 7.2 and 10.0 have; without it there are no edges. */
export async function readGraph(qmp: QmpClient): Promise<BlockGraph> {
  const nodes = list(await qmp.execute("query-named-block-nodes", { flat: true }));
  const byName = new Map(nodes.map((node) => [text(node["node-name"]), node]));
  const below = await readEdges(qmp);
  return {
    names: [...byName.keys()],
    node: (name) => byName.get(name),
    driver: (name) => optionalText(byName.get(name)?.["drv"]),
    below: (name) => below.get(name),
    above: (name) => [...below].filter(([, child]) => child === name).map(([parent]) => parent),
  };
}

async function readEdges(qmp: QmpClient): Promise<ReadonlyMap<string, string>> {
  const answer = await qmp.execute("x-debug-query-block-graph").then(object, () => ({}) as Json);
  const nodes = answer["nodes"] === undefined ? [] : list(answer["nodes"]);
  const edges = answer["edges"] === undefined ? [] : list(answer["edges"]);
  const names = new Map(nodes.map((node) => [node["id"], text(node["name"])]));
  const below = new Map<string, string>();
  for (const kind of ["backing", "file"])
    for (const edge of edges) {
      const parent = names.get(edge["parent"]);
      const child = names.get(edge["child"]);
      if (edge["name"] === kind && parent !== undefined && child !== undefined) below.set(parent, child);
    }
  return below;
}

/**
 * The disk's own node under the filters that stand on it, and those filters' drivers from the top. A job's own filter is
 * left out by `query-block`, so whatever else stands on the node is looked at, too.
 */
export function underFilters(
  graph: BlockGraph,
  top: string,
): { readonly node: string; readonly filters: readonly string[] } {
  const filters: string[] = [];
  let node = top;
  while (FILTERS.has(graph.driver(node)) && filters.length < 16) {
    filters.push(node);
    const next = graph.below(node);
    if (next === undefined) break;
    node = next;
  }
  const hidden = graph.above(node).filter((name) => FILTERS.has(graph.driver(name)) && !filters.includes(name));
  return { node, filters: [...filters, ...hidden].map(graph.driver) };
}
