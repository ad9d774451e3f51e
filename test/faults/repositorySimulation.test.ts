/**
 * Points are made, deleted, collected and read in every order a seed can think of, in one process, with the raw bytes
 * of every point kept beside it. STILLPOINT_SEED=… runs one seed again; STILLPOINT_ROUNDS=… runs more of them.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, CHUNK_BYTES, systemRandom } from "../../src/base/index.ts";
import type { DiskWriter, PointWriter, Repository, TreeRef } from "../../src/repository/index.ts";
import { type InMemory, inMemory, publish, streamed } from "../../src/repository/testing/harness.ts";
import { type Seeded, seeded } from "../../src/repository/testing/seeded.ts";

const STEPS = 500;
const DISK_CHUNKS = 40;

interface Live {
  readonly uid: string;
  readonly tree: TreeRef;
  readonly truth: Buffer;
  readonly manifest: Awaited<ReturnType<PointWriter["writeManifest"]>>;
}

interface Open {
  readonly writer: PointWriter;
  readonly disk: DiskWriter;
  readonly truth: Buffer;
  /** Bytes that its chunks may repeat: a point that may be deleted meanwhile. */
  readonly source: Buffer;
  /** Chunks before this one are decided. */
  next: number;
}

class Simulation {
  readonly #memory: InMemory;
  readonly #random: Seeded;
  readonly #journal: boolean;
  #contents = 0;
  #repository!: Repository;
  #live: Live[] = [];
  #open: Open[] = [];
  #collecting: Promise<unknown> | null = null;
  /** What a collection's caller has listed and not yet used. */
  #roots: Parameters<Repository["collect"]>[0] | null = null;
  readonly log: string[] = [];

  constructor(memory: InMemory, random: Seeded) {
    this.#memory = memory;
    this.#random = random;
    this.#journal = random.below(2) === 0;
  }

  async run(): Promise<void> {
    this.#repository = await this.#memory.open();
    const actions: readonly (readonly [name: string, weight: number, action: () => Promise<void>])[] = [
      ["begin", 4, () => this.#begin()],
      ["write", 16, () => this.#write()],
      ["commit", 8, () => this.#commit()],
      ["abort", 1, () => this.#abort()],
      ["delete", 7, () => this.#delete()],
      ["list", 8, () => this.#list()],
      ["collect", 8, () => this.#collect()],
      ["wait", 4, () => this.#wait()],
      ["read", 2, () => this.#read()],
      ["restart", 1, () => this.#restart()],
    ];
    const often = actions.flatMap(([name, weight, action]) => Array(weight).fill({ name, action }));
    for (let step = 0; step < STEPS; step++) {
      const { name, action } = this.#random.pick(often);
      this.log.push(name);
      await action();
    }
    await this.#wait();
    for (const open of this.#open.splice(0)) await open.writer.close();
    await this.#checkAll();
    await this.#repository.close();
    await this.#memory.dropCache();
    this.#repository = await this.#memory.open();
    await this.#checkAll();
    for (let round = 0; round < 3; round++) await this.#repository.collect(this.#rootsNow());
    await this.#checkAll();
    await this.#repository.close();
  }

  async #begin(): Promise<void> {
    const random = this.#random;
    if (this.#open.length >= 5) return;
    const base = this.#live.length > 0 && random.below(3) > 0 ? random.pick(this.#live) : null;
    const sizeBytes = bytes(DISK_CHUNKS * CHUNK_BYTES - random.below(2) * 512);
    const anchored = base !== null && base.tree.sizeBytes <= sizeBytes && random.below(2) > 0;
    const truth = Buffer.alloc(sizeBytes);
    if (base && anchored) base.truth.copy(truth);
    const writer = await this.#repository.beginPoint();
    const disk = await writer.disk({ sizeBytes, anchor: anchored && base ? base.tree : null });
    this.#open.push({ writer, disk, truth, source: base?.truth ?? truth, next: 0 });
  }

  /** Some more chunks of an open point: new ones, and ones that another point has too. */
  async #write(): Promise<void> {
    if (this.#open.length === 0) return;
    const random = this.#random;
    const open = random.pick(this.#open.slice(0, 3));
    for (let runs = 0; runs < 3 && open.next < DISK_CHUNKS; runs++) {
      const from = open.next * CHUNK_BYTES;
      open.next += 1 + random.below(5);
      const to = Math.min(open.truth.length, open.next * CHUNK_BYTES);
      const kind = random.below(8);
      if (kind === 0) {
        open.truth.fill(0, from, to);
        await open.disk.zero(bytes(from), bytes(to - from));
      } else if (kind < 6) {
        for (let at = from; at < to; at += CHUNK_BYTES) this.#content(open).copy(open.truth, at, 0, to - at);
        await open.disk.write(bytes(from), open.truth.subarray(from, to));
      }
    }
  }

  #content(open: Open): Buffer {
    if (this.#random.below(3) === 0) return Buffer.alloc(CHUNK_BYTES, `content ${this.#contents++} `);
    const at = this.#random.below(DISK_CHUNKS - 1) * CHUNK_BYTES;
    return Buffer.from(open.source.subarray(at, at + CHUNK_BYTES));
  }

  async #commit(): Promise<void> {
    const open = this.#open.find((candidate) => candidate.next >= DISK_CHUNKS / 2);
    if (!open) return;
    this.#open = this.#open.filter((other) => other !== open);
    const { tree } = await open.disk.finish();
    await open.writer.sync();
    const uid = this.#random.uuid();
    const manifest = await open.writer.writeManifest({
      point: uid as never,
      pointId: `/points/${uid}`,
      collectionId: "/collections/one",
      createdAt: new Date(0).toISOString(),
      disks: [{ diskUid: "d" as never, tree, lineage: "l", diskRestorePointId: "x" }],
      nvram: null,
      resource: null,
      record: null,
      origin: null,
      lockedUntil: null,
      expiresAt: null,
      recordSchema: 1,
    });
    if (this.#journal)
      await publish(this.#repository, "commit", {
        manifest,
        point: uid,
        pointId: uid,
        collectionId: "/collections/one",
      });
    await open.writer.close();
    this.#live.push({ uid, tree, truth: open.truth, manifest });
  }

  async #abort(): Promise<void> {
    await this.#take(this.#open)?.writer.close();
  }

  async #delete(): Promise<void> {
    if (this.#live.length < 3) return;
    // Mostly one that an open point repeats chunks of: that is when a collection can go wrong.
    const sources = this.#live.filter((live) => this.#open.some((open) => open.source === live.truth));
    const point = sources.length > 0 ? this.#random.pick(sources) : this.#random.pick(this.#live);
    this.#live = this.#live.filter((live) => live !== point);
    if (this.#journal) await publish(this.#repository, "delete", { point: point.uid, pointId: point.uid });
  }

  #rootsNow() {
    return { manifests: this.#live.map((point) => point.manifest), trees: [] };
  }

  /** Listed after the last collection has ended and used at some later time, as a caller's transaction is. */
  async #list(): Promise<void> {
    if (!this.#collecting) this.#roots ??= this.#rootsNow();
  }

  async #collect(): Promise<void> {
    if (!this.#roots || this.#collecting) return;
    this.#collecting = this.#repository.collect(this.#roots);
    this.#collecting.catch(() => {}); // told by #wait
    this.#roots = null;
    if (this.#random.below(2) === 0) await this.#wait();
  }

  async #wait(): Promise<void> {
    const collecting = this.#collecting;
    await collecting;
    this.#collecting = null;
  }

  async #read(): Promise<void> {
    if (this.#live.length === 0) return;
    const point = this.#random.pick(this.#live);
    assert.ok((await streamed(this.#repository, point.tree)).equals(point.truth), `point ${point.uid}`);
  }

  /** The process dies: what is open is gone, what is committed must not be. */
  async #restart(): Promise<void> {
    await this.#wait();
    this.#roots = null;
    for (const open of this.#open.splice(0)) await open.writer.close();
    await this.#repository.close();
    if (this.#random.below(2) === 0) await this.#memory.dropCache();
    this.#repository = await this.#memory.open();
  }

  #take<T>(items: T[]): T | undefined {
    return items.length === 0 ? undefined : items.splice(this.#random.below(items.length), 1)[0];
  }

  async #checkAll(): Promise<void> {
    for (const point of this.#live)
      assert.ok((await streamed(this.#repository, point.tree)).equals(point.truth), `point ${point.uid}`);
    const points = this.#live.map(({ uid, manifest }) => ({ pointId: uid, manifest }));
    assert.deepEqual((await this.#repository.verify({ points })).damage, []);
  }
}

const fixed = process.env["STILLPOINT_SEED"];
const rounds = fixed ? 1 : Number(process.env["STILLPOINT_ROUNDS"] ?? 4);

for (let round = 0; round < rounds; round++) {
  const seed = fixed ?? systemRandom.bytes(6).toString("hex");
  test(`create × delete × collect × read, seed ${seed}`, async (context) => {
    context.diagnostic(`STILLPOINT_SEED=${seed}`);
    const random = seeded(seed);
    await inMemory(async (memory) => {
      const simulation = new Simulation(memory, random);
      try {
        await simulation.run();
      } catch (error) {
        context.diagnostic(`steps: ${simulation.log.join(" ")}`);
        throw error;
      }
    }, random);
  });
}
