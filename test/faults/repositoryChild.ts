/** A process of its own that uses a repository, to be watched or hindered by strace. Arguments: mode, folder. */
import { openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { bytes, CHUNK_BYTES, systemClock, systemRandom } from "../../src/base/index.ts";
import { openRepository, type PointManifest } from "../../src/repository/index.ts";
import { publish, type Written, writePoint } from "../../src/repository/testing/harness.ts";
import { imageHash } from "./repositoryCrashCheck.ts";
import { liveThrough, scenarioImages } from "./repositoryScenario.ts";

const [mode, folder] = process.argv.slice(2) as [string, string];
const repository = await openRepository({
  path: join(folder, "repository"),
  keyFile: join(folder, "key"),
  region: "local",
  cacheDir: join(folder, "cache"),
  workers: 1,
  clock: systemClock,
  random: systemRandom,
});
const marks = openSync(join(folder, "marks"), "a");
const mark = (name: string) => void writeSync(marks, `${name}\n`);

if (mode === "live") await liveThrough(repository, mark);
else if (mode === "point") await tryPoint();
else await writeForEver();
await repository.close();

/** Point after point, each on the one before, with deletions and collections, until it is killed. */
async function writeForEver(): Promise<never> {
  let last: Written | null = null;
  const image = Buffer.alloc(40 * CHUNK_BYTES);
  for (;;) {
    const uid = systemRandom.uuid();
    const from = (systemRandom.bytes(1)[0] as number) % 30;
    const ranges = [[from * CHUNK_BYTES, (from + 10) * CHUNK_BYTES]] as const;
    systemRandom.bytes(10 * CHUNK_BYTES).copy(image, from * CHUNK_BYTES);
    const written: Written = await writePoint(repository, { image, anchor: last?.tree ?? null, ranges, name: uid });
    const { manifest, pointId } = written;
    await publish(repository, "commit", { point: uid, manifest, pointId, collectionId: "c" });
    process.stdout.write(`commit ${uid} ${imageHash(image)}\n`);
    if (last && from % 2 === 0) {
      const uid = last.pointId.slice("/points/".length);
      process.stdout.write(`delete ${uid}\n`);
      await publish(repository, "delete", { point: uid, pointId: last.pointId });
      await repository.collect({ manifests: [], trees: [written.tree] });
    }
    last = written;
  }
}

/** Tells on standard output how each step of a point ended; a step after a failed one must fail too. */
async function tryPoint(): Promise<void> {
  const steps: Record<string, string> = {};
  const step = async (name: string, work: () => Promise<unknown>) => {
    steps[name] = await work().then(
      () => "ok",
      (error: { readonly code?: string }) => error.code ?? String(error),
    );
  };
  const image = scenarioImages()[0] as Buffer;
  mark("begin");
  const writer = await repository.beginPoint();
  const disk = await writer.disk({ sizeBytes: bytes(image.length), anchor: null });
  await step("write", () => disk.write(bytes(0), image));
  await step("finish", () => disk.finish());
  await step("sync", () => writer.sync());
  await step("sync again", () => writer.sync());
  await step("manifest", () => writer.writeManifest({ disks: [] } as unknown as PointManifest));
  await step("manifest again", () => writer.writeManifest({ disks: [] } as unknown as PointManifest));
  await writer.close();
  const entry = repository.sealEntry(await repository.journalHead(), "lock", {});
  await step("journal", () => repository.publishEntry(entry));
  process.stdout.write(JSON.stringify(steps));
}
