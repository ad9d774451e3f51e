/** Opens what a power cut left and compares it with what had been promised by then. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock, systemRandom } from "../../src/base/index.ts";
import type { RepositoryKey } from "../../src/keys/index.ts";
import type { ManifestHash } from "../../src/repository/index.ts";
import { openStored } from "../../src/repository/open.ts";
import { directoryStorage } from "../../src/repository/storage/directory.ts";
import { streamed } from "../../src/repository/testing/harness.ts";
import type { Seeded } from "../../src/repository/testing/seeded.ts";
import { type WorkerPool, workerPool } from "../../src/repository/write/pool.ts";
import { crashState, type DiskState, FATES, memoryFiles, type Op } from "./repositoryCrashModel.ts";

/** SHA-256 of each point's disk, by the uid in its journal entry. */
export type Truths = ReadonlyMap<string, string>;

export function imageHash(image: Uint8Array): string {
  return createHash("sha256").update(image).digest("hex");
}

/** A pool that outlives the repositories that use it: starting threads is what costs. */
export function lastingPool(): { readonly pool: WorkerPool; close(): Promise<void> } {
  const pool = workerPool(1);
  return { pool: { ...pool, close: async () => {} }, close: pool.close };
}

export interface CrashCheck {
  readonly key: RepositoryKey;
  readonly base: DiskState;
  readonly ops: readonly Op[];
  readonly truths: Truths;
  readonly random: Seeded;
}

/**
 * Cuts the power after every call and lets every fate happen to what was not certain. No cut may lose a point that was
 * committed (a mark `commit {uid}`) and not deleted, and none may show a point of which something is missing.
 */
export async function checkEveryCut(check: CrashCheck): Promise<number> {
  const { ops, base, random } = check;
  const { pool, close } = lastingPool();
  const cacheDir = await mkdtemp(join(tmpdir(), "stillpoint-crash-"));
  const seen = new Set<string>();
  try {
    for (let cut = 0; cut <= ops.length; cut++) {
      const before = ops.slice(0, cut);
      const promised = marked(before);
      for (const fate of FATES) {
        const state = crashState(base, before, fate, random);
        const print = fingerprint(state, promised);
        if (seen.has(print)) continue;
        seen.add(print);
        const where = `cut after call ${cut} (${JSON.stringify(ops[cut - 1])?.slice(0, 120)}), ${fate}`;
        await checkState(check, state, promised, where, pool, cacheDir);
      }
    }
    return seen.size;
  } finally {
    await close();
    await rm(cacheDir, { recursive: true, force: true });
  }
}

/** Points committed, and those whose deletion had at least begun. */
function marked(ops: readonly Op[]): { readonly committed: Set<string>; readonly deleting: Set<string> } {
  const committed = new Set<string>();
  const deleting = new Set<string>();
  for (const op of ops) {
    if (op.op !== "mark") continue;
    const [what, uid] = op.name.split(" ") as [string, string];
    if (what === "commit") committed.add(uid);
    if (what === "delete") deleting.add(uid);
  }
  return { committed, deleting };
}

function fingerprint(state: DiskState, promised: ReturnType<typeof marked>): string {
  const hash = createHash("sha256");
  for (const [path, content] of [...state].sort(([a], [b]) => (a < b ? -1 : 1)))
    hash.update(`${path}\0${content === null ? "directory" : content.length}\0`).update(content ?? "");
  return hash.update([...promised.committed, "/", ...promised.deleting].join()).digest("hex");
}

async function checkState(
  { key, truths }: CrashCheck,
  state: DiskState,
  promised: ReturnType<typeof marked>,
  where: string,
  pool: WorkerPool,
  cacheDir: string,
): Promise<void> {
  const root = "/model";
  const storage = await directoryStorage({ root, random: systemRandom, files: memoryFiles(root, state) });
  await rm(cacheDir, { recursive: true, force: true });
  const options = { region: "local", cacheDir, clock: systemClock, random: systemRandom, pool };
  const repository = await openStored(storage, key, options, { release: () => {} });
  try {
    const live = new Map<string, ManifestHash>();
    for await (const { kind, payload } of repository.readJournal()) {
      const { point, manifest } = payload as { readonly point: string; readonly manifest: ManifestHash };
      if (kind === "commit") live.set(point, manifest);
      if (kind === "delete") live.delete(point);
    }
    for (const uid of promised.committed)
      assert.ok(live.has(uid) || promised.deleting.has(uid), `committed point ${uid} is lost: ${where}`);
    for (const [uid, hash] of live) {
      const manifest = await repository.readManifest(hash);
      const tree = manifest.disks[0]?.tree;
      assert.ok(tree, where);
      assert.equal(imageHash(await streamed(repository, tree)), truths.get(uid), `point ${uid}: ${where}`);
    }
    const points = [...live].map(([pointId, manifest]) => ({ pointId, manifest }));
    assert.deepEqual((await repository.verify({ points })).damage, [], where);
  } finally {
    await repository.close();
  }
}
