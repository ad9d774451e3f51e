import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { bytes, CHUNK_BYTES, MiB, systemClock } from "../../base/index.ts";
import { openRepository, type TreeRef } from "../index.ts";
import { inFolder, publish, streamed, writePoint } from "../testing/harness.ts";
import { seeded } from "../testing/seeded.ts";

const golden = fileURLToPath(new URL("./golden", import.meta.url));

/** The golden disk: noise, text, zeroes, a node level above the leaves, and a last chunk that is cut. */
export function goldenImage(): Buffer {
  const image = Buffer.alloc(2 * MiB + 5 * CHUNK_BYTES + 1536);
  const noise = seeded("golden").bytes(CHUNK_BYTES);
  noise.copy(image, 3 * CHUNK_BYTES);
  for (const chunk of [0, 1, 2, 9, 31, 32])
    image.fill(`chunk ${chunk} of the golden disk. `, chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);
  image.fill("the end ", 2 * MiB + 5 * CHUNK_BYTES);
  return image;
}

interface Truth {
  readonly points: readonly {
    readonly manifest: string;
    readonly tree: TreeRef;
    readonly changed: readonly number[];
  }[];
  readonly head: { readonly number: number; readonly hash: string };
}

async function make(): Promise<void> {
  await inFolder(async (options) => {
    const random = seeded("golden repository");
    const repository = await openRepository({ ...options, random });
    const image = goldenImage();
    const first = await writePoint(repository, { image, name: "00000000-0000-4000-8000-000000000001" });
    await publish(repository, "commit", {
      manifest: first.manifest,
      point: "1",
      pointId: first.pointId,
      collectionId: "/c",
    });
    image.fill("changed ", CHUNK_BYTES, 2 * CHUNK_BYTES);
    const second = await writePoint(repository, {
      image,
      anchor: first.tree,
      ranges: [[CHUNK_BYTES, 2 * CHUNK_BYTES]],
      name: "00000000-0000-4000-8000-000000000002",
    });
    await publish(repository, "commit", {
      manifest: second.manifest,
      point: "2",
      pointId: second.pointId,
      collectionId: "/c",
    });
    const truth: Truth = {
      points: [
        { manifest: first.manifest, tree: first.tree, changed: [] },
        { manifest: second.manifest, tree: second.tree, changed: [1] },
      ],
      head: await repository.journalHead(),
    };
    await repository.close();
    for (const name of await readdir(options.path, { recursive: true, withFileTypes: true })) {
      if (!name.isFile() || name.name.startsWith("lock.db")) continue;
      const from = join(name.parentPath, name.name);
      const to = join(golden, "repository", from.slice(options.path.length + 1));
      await mkdir(dirname(to), { recursive: true });
      await cp(from, to);
    }
    await cp(options.keyFile, join(golden, "key"));
    await writeFile(join(golden, "truth.json"), `${JSON.stringify(truth, null, 2)}\n`);
  });
}

if (process.env["STILLPOINT_WRITE_GOLDEN"]) await make();

test("the golden repository of version 1 is read, verified and written on", async () => {
  const truth = JSON.parse(await readFile(join(golden, "truth.json"), "utf8")) as Truth;
  const folder = await mkdtemp(join(tmpdir(), "stillpoint-golden-"));
  try {
    await cp(golden, folder, { recursive: true });
    const repository = await openRepository({
      path: join(folder, "repository"),
      keyFile: join(folder, "key"),
      region: "local",
      cacheDir: join(folder, "cache"),
      workers: 1,
      clock: systemClock,
      random: seeded("later"),
    });
    assert.deepEqual(await repository.journalHead(), truth.head);
    for (const { manifest, tree, changed } of truth.points) {
      const image = goldenImage();
      for (const chunk of changed) image.fill("changed ", chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);
      assert.deepEqual((await repository.readManifest(manifest as never)).disks[0]?.tree, tree);
      assert.ok((await streamed(repository, tree)).equals(image));
      const same = await writePoint(repository, { image });
      assert.deepEqual(same.tree, tree, "ids are computed as they were");
      assert.equal(same.stats.newStoredBytes, 0);
      assert.equal(same.tree.sizeBytes, bytes(image.length));
    }
    const points = truth.points.map(({ manifest }) => ({ pointId: manifest, manifest: manifest as never }));
    assert.deepEqual((await repository.verify({ points })).damage, []);
    await repository.close();
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
