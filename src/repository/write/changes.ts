import { closeSync, mkdirSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Random } from "../../base/index.ts";
import { ID_BYTES } from "../format/node.ts";

/** `count` chunks from `start` have this id. Zero ids stand for runs of zeroes; others for one chunk. */
export interface Change {
  readonly start: number;
  readonly count: number;
  readonly id: Buffer;
}

const RECORD_BYTES = 8 + ID_BYTES;
/** Changes kept in memory before they are spilled, sorted, to a file: 5 MiB. */
const MAX_RECORDS = 128 * 1024;
const READ_RECORDS = 1024;

/** The changes of one disk, in any order; read back once, in disk order. Memory is flat: 1 TiB spills 128 runs. */
export class ChangeLog {
  readonly #folder: string;
  readonly #random: Random;
  readonly #runs: string[] = [];
  #records = Buffer.alloc(256 * RECORD_BYTES);
  #count = 0;

  constructor(folder: string, random: Random) {
    this.#folder = folder;
    this.#random = random;
  }

  add(start: number, count: number, id: Buffer): void {
    if (this.#count === MAX_RECORDS) this.#spill();
    if (this.#count * RECORD_BYTES === this.#records.length)
      this.#records = Buffer.concat([this.#records], this.#records.length * 2);
    const at = this.#count++ * RECORD_BYTES;
    this.#records.writeUInt32LE(start, at);
    this.#records.writeUInt32LE(count, at + 4);
    id.copy(this.#records, at + 8);
  }

  #sorted(): Buffer {
    const order = Float64Array.from({ length: this.#count }, (_, index) => {
      return this.#records.readUInt32LE(index * RECORD_BYTES) * MAX_RECORDS + index;
    }).sort();
    const sorted = Buffer.allocUnsafe(this.#count * RECORD_BYTES);
    order.forEach((key, index) => {
      const from = (key % MAX_RECORDS) * RECORD_BYTES;
      this.#records.copy(sorted, index * RECORD_BYTES, from, from + RECORD_BYTES);
    });
    return sorted;
  }

  #spill(): void {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const path = join(this.#folder, `${this.#random.bytes(8).toString("hex")}.changes`);
    this.#runs.push(path);
    const fd = openSync(path, "wx", 0o600);
    try {
      const sorted = this.#sorted();
      for (let at = 0; at < sorted.length; ) at += writeSync(fd, sorted, at);
    } finally {
      closeSync(fd);
    }
    this.#count = 0;
  }

  /** All changes by `start`. Ids are valid until the next step. */
  *inOrder(): Generator<Change> {
    const sources = [memoryRun(this.#sorted()), ...this.#runs.map(fileRun)];
    let live = sources.filter((source) => source.next());
    while (live.length > 0) {
      let least = live[0] as Run;
      for (const run of live) if (run.start < least.start) least = run;
      yield least.change();
      if (!least.next()) live = live.filter((run) => run !== least);
    }
  }

  close(): void {
    for (const path of this.#runs) rmSync(path, { force: true });
  }
}

interface Run {
  readonly start: number;
  next(): boolean;
  change(): Change;
}

function run(more: () => Buffer): Run {
  let block: Buffer = Buffer.alloc(0);
  let at = 0;
  let start = 0;
  return {
    get start() {
      return start;
    },
    next: () => {
      at += RECORD_BYTES;
      if (at >= block.length) {
        block = more();
        at = 0;
        if (block.length === 0) return false;
      }
      start = block.readUInt32LE(at);
      return true;
    },
    change: () => ({ start, count: block.readUInt32LE(at + 4), id: block.subarray(at + 8, at + RECORD_BYTES) }),
  };
}

function memoryRun(sorted: Buffer): Run {
  let rest = sorted;
  return run(() => {
    const block = rest;
    rest = Buffer.alloc(0);
    return block;
  });
}

function fileRun(path: string): Run {
  let position = 0;
  const block = Buffer.alloc(READ_RECORDS * RECORD_BYTES);
  return run(() => {
    const fd = openSync(path, "r");
    try {
      const got = readSync(fd, block, 0, block.length, position);
      position += got;
      return block.subarray(0, got);
    } finally {
      closeSync(fd);
    }
  });
}
