/**
 * Reads on the host what the demonstration guest's writer left on a disk: numbered lines, each written with fsync, in
 * turn on all disks. Reads copies only, so the images may be evidence.
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run, StillpointError } from "../../base/index.ts";

const TIMEOUT_MS = 120_000;
/** `NNNNNNNNNNNN BBBBBBBB MMMMMMMMMMMMM\n`: number, boot, milliseconds since 1970. */
const LINE = /^(\d{12}) ([0-9a-f]{8}) (\d{13})$/;
const LINE_BYTES = 36;

/** An image with an ext4 file system; in a partition when offset and size are given. */
export interface SequenceImage {
  readonly path: string;
  readonly format: "raw" | "qcow2";
  readonly offsetBytes?: number;
  readonly sizeBytes?: number;
}

/** The lines one boot of the guest wrote, `first` to `last` without a gap. */
export interface BootSequence {
  readonly boot: string;
  readonly first: number;
  readonly last: number;
  /** The guest's clock when it wrote `last`. */
  readonly lastAtMs: number;
}

/**
 * The sequence file of one disk, boot by boot. The file system is checked first: its journal is replayed as at a boot
 * after a power cut, and anything that needs more than that is an error, as is a number missing or twice.
 */
export async function readSequence(image: SequenceImage): Promise<readonly BootSequence[]> {
  return parseSequence(await readSequenceFile(image), image.path);
}

/** The file itself, after the check. */
export async function readSequenceFile(image: SequenceImage): Promise<Buffer> {
  const work = await mkdtemp(join(tmpdir(), "stillpoint-seq-"));
  try {
    const copy = join(work, "fs.raw");
    await run("qemu-img", ["convert", "-O", "raw", imageOptions(image), copy], TIMEOUT_MS);
    // exit code 1: mended what a journal replay leaves to mend (free counts); 4 and more: real damage
    await run("sh", ["-c", 'e2fsck -f -p "$1" || [ $? -eq 1 ]', "sh", copy], TIMEOUT_MS);
    const file = join(work, "seq");
    const { stderr } = await run("debugfs", ["-R", `dump /seq ${file}`, copy], TIMEOUT_MS);
    const content = await readFile(file).catch(() => null);
    if (!content) throw new StillpointError("NotFound", `${image.path} holds no sequence file: ${stderr.trim()}`);
    return content;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Throws InternalError when a line is damaged or the numbers are not 1, 2, 3 … A half line at the end is ignored. */
export function parseSequence(content: Buffer, source: string): readonly BootSequence[] {
  const boots: BootSequence[] = [];
  const lines = Math.floor(content.length / LINE_BYTES);
  for (let index = 0; index < lines; index++) {
    const line = content.toString("latin1", index * LINE_BYTES, (index + 1) * LINE_BYTES - 1);
    const [, number, boot, at] = line.match(LINE) ?? [];
    if (Number(number) !== index + 1 || boot === undefined)
      throw new StillpointError("InternalError", `${source}: line ${index + 1} of its sequence reads '${line}'.`);
    const known = boots.at(-1);
    const next = { boot, first: index + 1, last: index + 1, lastAtMs: Number(at) };
    if (known?.boot === boot) boots[boots.length - 1] = { ...next, first: known.first };
    else boots.push(next);
  }
  return boots;
}

/** The last number of `boot` (default: of any boot) on each disk; 0 where there is none. */
export function lastNumbers(disks: readonly (readonly BootSequence[])[], boot?: string): readonly number[] {
  return disks.map((boots) => (boot ? boots.find((one) => one.boot === boot) : boots.at(-1))?.last ?? 0);
}

/** Whether the numbers can stand together at one instant: the writer goes A, B, C, A … */
export function inWriteOrder(last: readonly number[]): boolean {
  const first = last[0] ?? 0;
  return last.every((number, index) => number >= first - 1 && number <= (last[index - 1] ?? number));
}

function imageOptions(image: SequenceImage): string {
  const format = { driver: image.format, file: { driver: "file", filename: image.path } };
  if (image.offsetBytes === undefined) return `json:${JSON.stringify(format)}`;
  const part = { driver: "raw", offset: image.offsetBytes, size: image.sizeBytes, file: format };
  return `json:${JSON.stringify(part)}`;
}
