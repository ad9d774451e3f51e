import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";

export const BUCKETS = 256;
const ENTRY_BYTES = 8;
/** Entries in memory, over all buckets, before they go to files: 32 MiB. 168 M ids (10 TiB) make buckets of 5 MiB. */
const MEMORY_ENTRIES = 4 * 1024 * 1024;
const FIRST_ENTRIES = 64;

/**
 * A bag of ids, to be read back sorted, one bucket after another: by their first byte, then by the six that follow,
 * kept as exact doubles and sorted natively. 56 bits tell ids apart well enough where a false match only keeps
 * something alive. Memory is flat; what does not fit lies in files.
 */
export class IdBuckets {
  readonly #parent: string;
  #folder: string | null = null;
  readonly #arrays: Float64Array[] = Array.from({ length: BUCKETS }, () => new Float64Array(FIRST_ENTRIES));
  readonly #counts = new Uint32Array(BUCKETS);
  #inMemory = 0;
  #total = 0;

  /** `parent`: where files may be made. */
  constructor(parent: string) {
    this.#parent = parent;
  }

  get size(): number {
    return this.#total;
  }

  add(id: Buffer): void {
    if (this.#inMemory >= MEMORY_ENTRIES) this.#spill();
    const bucket = id[0] as number;
    let array = this.#arrays[bucket] as Float64Array;
    const count = this.#counts[bucket] as number;
    if (count === array.length) {
      const larger = new Float64Array(count * 2);
      larger.set(array);
      this.#arrays[bucket] = array = larger;
    }
    array[count] = idKey(id);
    this.#counts[bucket] = count + 1;
    this.#inMemory++;
    this.#total++;
  }

  /** The keys of one bucket in order; each may come several times. */
  sorted(bucket: number): Float64Array {
    const inMemory = (this.#arrays[bucket] as Float64Array).subarray(0, this.#counts[bucket]);
    const file = this.#folder === null ? null : readFileSync(join(this.#folder, String(bucket)));
    const out = new Float64Array((file ? file.length / ENTRY_BYTES : 0) + inMemory.length);
    if (file) new Uint8Array(out.buffer).set(file);
    out.set(inMemory, out.length - inMemory.length);
    return out.sort();
  }

  #spill(): void {
    if (this.#folder === null) {
      mkdirSync(this.#parent, { recursive: true, mode: 0o700 });
      this.#folder = mkdtempSync(join(this.#parent, "ids-"));
    }
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const full = (this.#arrays[bucket] as Float64Array).subarray(0, this.#counts[bucket]);
      const bytes = new Uint8Array(full.buffer, full.byteOffset, full.byteLength);
      const fd = openSync(join(this.#folder, String(bucket)), "a", 0o600);
      try {
        for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
      } finally {
        closeSync(fd);
      }
      this.#arrays[bucket] = new Float64Array(FIRST_ENTRIES);
      this.#counts[bucket] = 0;
    }
    this.#inMemory = 0;
  }

  close(): void {
    if (this.#folder !== null) rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** What an id is within its bucket. */
export function idKey(id: Buffer, at = 0): number {
  return id.readUIntBE(at + 1, 6);
}

/** Whether a sorted bucket holds the key. */
export function hasKey(sorted: Float64Array, key: number): boolean {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] as number) < key) low = middle + 1;
    else high = middle;
  }
  return sorted[low] === key;
}
