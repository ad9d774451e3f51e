/** A process of its own that uses a repository, to be watched or hindered by strace. Arguments: mode, folder. */
import { openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { bytes, systemClock, systemRandom } from "../../src/base/index.ts";
import { openRepository, type PointManifest } from "../../src/repository/index.ts";
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
else await tryPoint();
await repository.close();

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
