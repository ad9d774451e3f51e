import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, systemRandom } from "../../src/base/index.ts";
import { drawRepositoryKey } from "../../src/keys/index.ts";
import { writeNewRepository } from "../../src/repository/create.ts";
import { openStored } from "../../src/repository/open.ts";
import { directoryStorage } from "../../src/repository/storage/directory.ts";
import type { Files } from "../../src/repository/storage/files.ts";
import { inFolder } from "../../src/repository/testing/harness.ts";
import { seeded } from "../../src/repository/testing/seeded.ts";
import { checkEveryCut, imageHash, lastingPool, type Truths } from "./repositoryCrashCheck.ts";
import { crashState, memoryFiles, type Op } from "./repositoryCrashModel.ts";
import { liveThrough, scenarioImages } from "./repositoryScenario.ts";

const ROOT = "/model";
const truths: Truths = new Map(scenarioImages().map((image, n) => [`p${n}`, imageHash(image)]));

/** Records a life on a disk that only remembers what was synced. `lie` may change the calls' meaning. */
async function recorded(lie: (files: Files) => Files = (files) => files) {
  const key = drawRepositoryKey(systemRandom);
  const ops: Op[] = [];
  const files = lie(memoryFiles(ROOT, new Map(), (op) => ops.push(op)));
  const storage = await directoryStorage({ root: ROOT, random: systemRandom, files });
  await writeNewRepository(storage, key, { region: "local", clock: systemClock, random: systemRandom });
  // The creation is certain here; that it may be cut off is the key file's affair.
  const base = crashState(new Map(), ops.splice(0), "everything", seeded("base"));
  const { pool, close } = lastingPool();
  await inFolder(async ({ cacheDir }) => {
    const options = { region: "local", cacheDir, clock: systemClock, random: systemRandom, pool };
    const repository = await openStored(storage, key, options, { release: () => {} });
    await liveThrough(repository, (name) => ops.push({ op: "mark", name }));
    await repository.close();
  });
  await close();
  return { key, base, ops };
}

test("a lying disk: no power cut loses a committed point or shows half of one", async (context) => {
  const seed = process.env["STILLPOINT_SEED"] ?? systemRandom.bytes(6).toString("hex");
  context.diagnostic(`STILLPOINT_SEED=${seed}`);
  const life = await recorded();
  const states = await checkEveryCut({ ...life, truths, random: seeded(seed) });
  context.diagnostic(`${life.ops.length} calls, ${states} different states`);
  assert.ok(states > 100);
});

for (const [what, lie] of [
  [
    "the fsync of a file",
    (files: Files): Files => ({
      ...files,
      create: async (path) => ({ ...(await files.create(path)), sync: async () => {} }),
    }),
  ],
  ["the fsync of a directory", (files: Files): Files => ({ ...files, syncDirectory: async () => {} })],
] as const)
  test(`the lying disk finds out a storage that leaves out ${what}`, async () => {
    const life = await recorded(lie);
    await assert.rejects(checkEveryCut({ ...life, truths, random: seeded("fixed") }));
  });
