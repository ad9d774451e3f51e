/** A dense image that every contender reads: this machine's own programs and libraries, end to end. */
import { createReadStream, type Dirent, readdirSync } from "node:fs";
import { open, stat } from "node:fs/promises";
import { join } from "node:path";

const SOURCES = ["/usr/lib", "/usr/bin", "/usr/share"];
const SMALLEST_BYTES = 4096;

/**
 * Writes `sizeBytes` of real files, each padded to 4 KiB as a file system would, to `path`. When the machine has less
 * than that, it starts again with every byte inverted, so that nothing repeats and nothing de-duplicates for free.
 */
export async function makeDenseImage(path: string, sizeBytes: number): Promise<void> {
  const target = await open(path, "w");
  try {
    let done = 0;
    for (let round = 0; done < sizeBytes; round++) {
      const before = done;
      for (const file of files(SOURCES)) {
        for await (const piece of createReadStream(file, { highWaterMark: 1 << 20 })) {
          const data = piece as Buffer;
          if (round > 0) for (let i = 0; i < data.length; i++) data[i] = (data[i] as number) ^ (0x55 + round);
          const part = data.subarray(0, Math.min(data.length, sizeBytes - done));
          await target.write(part, 0, part.length, done);
          done += part.length;
          if (done === sizeBytes) break;
        }
        if (done >= sizeBytes) break;
        done = Math.min(sizeBytes, Math.ceil(done / 4096) * 4096);
      }
      if (done === before) throw new Error("no files to make an image of");
    }
    await target.truncate(sizeBytes);
    await target.sync();
  } finally {
    await target.close();
  }
}

function* files(folders: readonly string[]): Generator<string> {
  for (const folder of folders) {
    const entries: Dirent[] = readdirSync(folder, { withFileTypes: true });
    entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    const inner: string[] = [];
    for (const entry of entries) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) inner.push(path);
      else if (entry.isFile()) yield path;
    }
    yield* files(inner);
  }
}

/** Reads it once, so that all contenders find it in the page cache. */
export async function warm(path: string): Promise<number> {
  let total = 0;
  for await (const piece of createReadStream(path, { highWaterMark: 4 << 20 })) total += (piece as Buffer).length;
  if (total < SMALLEST_BYTES) throw new Error(`${path} is empty`);
  return (await stat(path)).size;
}
