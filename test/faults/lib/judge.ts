/** Holds what the repository keeps of each point against truths that do not come from Stillpoint. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TreeRef } from "../../../src/repository/index.ts";
import { inWriteOrder, LAYOUT, lastNumbers, readSequence } from "../../guest/lib/index.ts";
import { readExport, readImage } from "../../guest/lib/truth.ts";
import { dataDigestOfFile } from "./digest.ts";
import type { FaultSite } from "./site.ts";
import { openStoredPoints, type StoredPoints } from "./stored.ts";

/** What is known of one point from outside. */
interface Known {
  /** Digests of full reads of the frozen source, by disk. */
  readonly frozen: Map<number, string>;
  /** What it held when it was first seen Succeeded. */
  first: readonly string[] | null;
  /** The guest had written at least so much, with fsync, before the point was asked for. */
  confirmed: number;
}

export interface Judge {
  /** Before a point is asked for: what the guest has confirmed until then must be in it. */
  expect(name: string): Promise<void>;
  /** The same of a guest that has not booted. */
  expectAnything(name: string): void;
  /**
   * Reads, with qemu-img, whatever can be read of the frozen source of the capture that is open now: exports of pulled
   * disks, staging files of pushed ones that QEMU has closed. Returns how many disks that were.
   */
  lookAtFrozen(name: string): Promise<number>;
  /**
   * Reads every expected point that has succeeded, or only those given, whole. Each must equal its frozen source where
   * that was read, itself when it was first read, and the fixed disk. `sequences`: the points whose sequence files are
   * read, too: in write order over the disks, and nothing lost that was confirmed.
   */
  compare(options?: { readonly only?: readonly string[]; readonly sequences?: readonly string[] }): Promise<number>;
  /** Points that must not be there any more are not compared. */
  forget(name: string): void;
}

const FIXED_DISK = 3;

export function makeJudge(fault: FaultSite): Judge {
  const points = new Map<string, Known>();

  async function lookAtFrozen(name: string): Promise<number> {
    const known = points.get(name);
    const state = (await fault.captures()).find(({ phase }) => phase === "taken");
    if (!known || !state) return 0;
    const { exports, nodes } = await fault.facts();
    const work = await mkdtemp(join(tmpdir(), "sp-truth-"));
    try {
      const reads = Object.entries(state.scratch).map(async ([member, path]) => {
        const target = join(work, `${member}.raw`);
        const exported = exports.find((one) => one.endsWith(`-${member}`));
        if (exported && state.nbdSocket) await readExport(state.nbdSocket, exported, target);
        else if (member === "1" && !nodes.some((node) => node.endsWith(`-${member}t`)))
          await readImage(path, "qcow2", target);
        else return 0;
        known.frozen.set(Number(member), await dataDigestOfFile(target));
        return 1;
      });
      return (await Promise.all(reads)).reduce((sum: number, one) => sum + one, 0);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }

  async function compareOne(
    stored: StoredPoints,
    name: string,
    known: Known,
    withSequences: boolean,
  ): Promise<boolean> {
    const point = await fault.point(name);
    if (point?.provisioningState !== "Succeeded") {
      assert.equal(known.first, null, `${name} had succeeded and is ${point?.provisioningState ?? "gone"}`);
      return false;
    }
    const { disks } = await stored.manifest(point.manifest ?? "");
    const digests: string[] = [];
    for (const { tree } of disks) digests.push(await stored.digest(tree));
    for (const [index, truth] of known.frozen) assert.equal(digests[index], truth, `disk ${index} of ${name}`);
    assert.equal(digests[FIXED_DISK], fault.fixedDigest, `the disk nobody writes to, in ${name}`);
    assert.deepEqual(digests, known.first ?? digests, `${name} has changed since it succeeded`);
    known.first = digests;
    if (withSequences)
      await readSequences(
        stored,
        disks.map(({ tree }) => tree),
        name,
        known.confirmed,
      );
    return true;
  }

  return {
    expect: async (name) => {
      points.set(name, { frozen: new Map(), first: null, confirmed: await fault.vm.written() });
    },
    expectAnything: (name) => void points.set(name, { frozen: new Map(), first: null, confirmed: 0 }),
    lookAtFrozen,
    compare: async ({ only, sequences = [] } = {}) => {
      const stored = await openStoredPoints(fault.site.repositoryDir, fault.site.keyFile);
      let compared = 0;
      try {
        for (const [name, known] of points) {
          if (only && !only.includes(name)) continue;
          if (await compareOne(stored, name, known, sequences.includes(name))) compared++;
        }
      } finally {
        await stored.close();
      }
      return compared;
    },
    forget: (name) => void points.delete(name),
  };
}

async function readSequences(
  stored: StoredPoints,
  trees: readonly TreeRef[],
  name: string,
  confirmed: number,
): Promise<void> {
  const work = await mkdtemp(join(tmpdir(), "sp-seq-"));
  try {
    const reads = trees.slice(0, FIXED_DISK).map(async (tree, index) => {
      const path = join(work, `${index}.raw`);
      await stored.write(tree, path);
      const part = index === 0 ? { offsetBytes: LAYOUT.rootOffsetBytes, sizeBytes: LAYOUT.rootBytes } : {};
      return readSequence({ path, format: "raw", ...part });
    });
    const last = lastNumbers(await Promise.all(reads));
    assert.ok(inWriteOrder(last), `${name} ends at ${last.join(", ")}: no instant can have left that`);
    assert.ok(Math.min(...last) >= confirmed, `${name} ends at ${last.join(", ")}; ${confirmed} was confirmed before`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
