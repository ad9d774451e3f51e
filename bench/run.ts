/**
 * `npm run bench`: the bars of the design, beside restic, borg and qemu-img on the same bytes in the same run.
 * Options: --size-mib N (2048), --rounds N (3), --points N (200), --json FILE. Ratios count; speeds belong to this machine.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { MiB } from "../src/base/index.ts";
import { benchCopy } from "./copy.ts";
import { benchRandomWrites } from "./delta.ts";
import { benchHugeDisk, benchNbdCopy } from "./guest.ts";
import { makeDenseImage, warm } from "./lib/image.ts";
import { type Row, report } from "./lib/report.ts";
import { benchStall } from "./stall.ts";

const { values } = parseArgs({
  options: {
    "size-mib": { type: "string", default: "2048" },
    rounds: { type: "string", default: "3" },
    points: { type: "string", default: "200" },
    json: { type: "string" },
  },
});
const sizeBytes = Number(values["size-mib"]) * MiB;
const rounds = Number(values.rounds);
const points = Number(values.points);
if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 64 * MiB || !(rounds >= 1) || !(points >= 2))
  throw new Error("--size-mib needs a whole number from 64, --rounds one from 1, --points one from 2");

const dir = await mkdtemp(join(tmpdir(), "sp-bench-"));
const rows: Row[] = [];
const step = async (name: string, work: () => Promise<readonly Row[]>) => {
  console.log(`measuring: ${name}`);
  rows.push(...(await work()));
};
try {
  const image = join(dir, "dense.img");
  console.log(`making a dense image of ${values["size-mib"]} MiB from this machine's programs and libraries`);
  await makeDenseImage(image, sizeBytes);
  await warm(image);
  await step("full copy and restore beside restic, borg and qemu-img", () => benchCopy(dir, image, sizeBytes, rounds));
  await step("full copy over NBD", () => benchNbdCopy(image, sizeBytes));
  await step("a 1 TiB disk", () => benchHugeDisk());
  await step(`${points} points and as many shams under a writing guest`, () => benchStall(points));
  await step("small writes, and 500 points", () => benchRandomWrites(dir, image, sizeBytes));
} finally {
  await rm(dir, { recursive: true, force: true });
}
report(
  rows,
  { cpu: cpus()[0]?.model, cores: availableParallelism(), sizeMiB: sizeBytes / MiB, rounds, node: process.version },
  values.json,
);
