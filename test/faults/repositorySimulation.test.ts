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

const STEPS = 120;
const DISK_CHUNKS = 70;

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
}

class Simulation {
  readonly #memory: InMemory;
  readonly #random: Seeded;
  readonly #journal: boolean;
  readonly #contents: readonly Buffer[];
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
    // Few contents for many places: chunks are shared between disks and points all the time.
    this.#contents = Array.from({ length: 40 }, (_, n) =>
      n < 20 ? Buffer.alloc(CHUNK_BYTES, `content ${n} `) : random.bytes(CHUNK_BYTES),
    );
  }

  async run(): Promise<void> {
    this.#repository = await this.#memory.open();
    const actions = {
      begin: () => this.#begin(),
      commit: () => this.#commit(),
      abort: () => this.#abort(),
      delete: () => this.#delete(),
      list: () => this.#list(),
      collect: () => this.#collect(),
      wait: () => this.#wait(),
      read: () => this.#read(),
      restart: () => this.#restart(),
    };
    const names = Object.keys(actions) as (keyof typeof actions)[];
    const often = [
      ...names,
      "begin",
      "begin",
      "commit",
      "commit",
      "delete",
      "list",
      "collect",
      "collect",
      "wait",
    ] as const;
    for (let step = 0; step < STEPS; step++) {
      const name = this.#random.pick(often);
      if (name === "restart" && this.#random.below(3) > 0) continue;
      this.log.push(name);
      await actions[name]();
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
    const base = this.#live.length > 0 && random.below(3) > 0 ? random.pick(this.#live) : null;
    const sizeBytes = bytes(DISK_CHUNKS * CHUNK_BYTES - random.below(2) * 512);
    const anchored = base !== null && base.tree.sizeBytes <= sizeBytes && random.below(4) > 0;
    const truth = Buffer.alloc(sizeBytes);
    if (base && anchored) base.truth.copy(truth);
    const writer = await this.#repository.beginPoint();
    const disk = await writer.disk({ sizeBytes, anchor: anchored && base ? base.tree : null });
    for (let chunk = 0; chunk < DISK_CHUNKS; ) {
      const count = 1 + random.below(12);
      const from = chunk * CHUNK_BYTES;
      const to = Math.min(sizeBytes, from + count * CHUNK_BYTES);
      chunk += count;
      const kind = random.below(anchored ? 6 : 3);
      if (kind === 0) {
        truth.fill(0, from, to);
        await disk.zero(bytes(from), bytes(to - from));
      } else if (kind < 3) {
        for (let at = from; at < to; at += CHUNK_BYTES) random.pick(this.#contents).copy(truth, at, 0, to - at);
        await disk.write(bytes(from), truth.subarray(from, to));
      }
    }
    this.#open.push({ writer, disk, truth });
  }

  async #commit(): Promise<void> {
    const open = this.#take(this.#open);
    if (!open) return;
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
    if (this.#random.below(3) > 0) return;
    await this.#take(this.#open)?.writer.close();
  }

  async #delete(): Promise<void> {
    const point = this.#take(this.#live);
    if (point && this.#journal) await publish(this.#repository, "delete", { point: point.uid, pointId: point.uid });
  }

  #rootsNow() {
    return { manifests: this.#live.map((point) => point.manifest), trees: [] };
  }

  /** Listed after the last collection has ended and used at some later time, as a caller's transaction is. */
  async #list(): Promise<void> {
    if (!this.#collecting) this.#roots = this.#rootsNow();
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
