import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { systemRandom } from "../../src/base/index.ts";
import { type ManifestHash, openRepository, type RepositoryOptions } from "../../src/repository/index.ts";
import { inFolder, streamed } from "../../src/repository/testing/harness.ts";
import { seeded } from "../../src/repository/testing/seeded.ts";
import { imageHash } from "./repositoryCrashCheck.ts";

const child = fileURLToPath(new URL("./repositoryChild.ts", import.meta.url));

interface Told {
  readonly committed: Map<string, string>;
  readonly deleting: Set<string>;
}

/** Starts the writer and notes what it promises; resolves at its first commit. */
async function startWriter(folder: string, told: Told): Promise<ChildProcess> {
  const writer = spawn(process.execPath, [child, "loop", folder], { stdio: ["ignore", "pipe", "inherit"] });
  const lines = createInterface({ input: writer.stdout });
  const first = once(lines, "line");
  lines.on("line", (line) => {
    const [what, uid, hash] = line.split(" ") as [string, string, string];
    if (what === "commit" && hash?.length === 64) told.committed.set(uid, hash);
    if (what === "delete") told.deleting.add(uid);
  });
  await Promise.race([first, once(writer, "exit").then(() => assert.fail("the writer ended by itself"))]);
  return writer;
}

async function kill(writer: ChildProcess): Promise<void> {
  const ended = once(writer, "close");
  writer.kill("SIGKILL");
  await ended;
}

/** Every promised point is there and whole, and so is every point that is there. */
async function check(options: RepositoryOptions, told: Told): Promise<number> {
  const repository = await openRepository(options);
  try {
    const live = new Map<string, ManifestHash>();
    for await (const { kind, payload } of repository.readJournal()) {
      const { point, manifest } = payload as { readonly point: string; readonly manifest: ManifestHash };
      if (kind === "commit") live.set(point, manifest);
      if (kind === "delete") live.delete(point);
    }
    for (const uid of told.committed.keys()) assert.ok(live.has(uid) || told.deleting.has(uid), `${uid} is lost`);
    for (const [uid, hash] of live) {
      const tree = (await repository.readManifest(hash)).disks[0]?.tree;
      assert.ok(tree);
      const image = await streamed(repository, tree);
      if (told.committed.has(uid)) assert.equal(imageHash(image), told.committed.get(uid), uid);
    }
    const points = [...live].map(([pointId, manifest]) => ({ pointId, manifest }));
    assert.deepEqual((await repository.verify({ points })).damage, []);
    return live.size;
  } finally {
    await repository.close();
  }
}

test("kill -9 while writing, deleting and collecting: what was promised is there; the lock goes with its holder", async (context) => {
  const seed = process.env["STILLPOINT_SEED"] ?? systemRandom.bytes(4).toString("hex");
  context.diagnostic(`STILLPOINT_SEED=${seed}`);
  const random = seeded(seed);
  const told: Told = { committed: new Map(), deleting: new Set() };
  await inFolder(async (options, folder) => {
    for (let round = 0; round < Number(process.env["STILLPOINT_ROUNDS"] ?? 4); round++) {
      const writer = await startWriter(folder, told);
      try {
        await assert.rejects(openRepository(options), { code: "RepositoryUnavailable", message: /in use/ });
        await delay(random.below(700));
      } finally {
        await kill(writer);
      }
      context.diagnostic(`round ${round}: ${told.committed.size} committed, ${await check(options, told)} live`);
    }
  });
});
