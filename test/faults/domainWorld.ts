/**
 * What lies around the domain, small but faithful: a hypervisor, image files, a repository. It survives the death of
 * the service under test; a {@link Gate} in front of every call decides when that service dies.
 */
import { createHash } from "node:crypto";
import {
  type Bytes,
  bytes,
  type Clock,
  type DiskUid,
  type PointUid,
  type Random,
  StillpointError,
  type VmUid,
} from "../../src/base/index.ts";
import type {
  Adopted,
  Anchor,
  Captured,
  CaptureHooks,
  CaptureJob,
  Captures,
  Catalog,
  DiskRestorePoint,
  Images,
  Journal,
  JournalItem,
  Log,
  Machines,
  PointRecord,
  RepositoryReads,
  Restores,
  VmPower,
} from "../../src/domain/index.ts";

/** The service is dead: nothing it does from now on has any effect. */
export class Crash extends Error {
  override readonly name = "Crash";
}

/** Counts what the service does to the outside, and ends it at the step it was told. */
export class Gate {
  readonly names: string[] = [];
  dead = false;
  readonly #dieAt: number;
  constructor(dieAt = Number.POSITIVE_INFINITY) {
    this.#dieAt = dieAt;
  }
  async step(name: string): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.alive();
    this.names.push(name);
    if (this.names.length < this.#dieAt) return;
    this.dead = true;
    throw new Crash(`at step ${this.names.length}, ${name}`);
  }
  alive(): void {
    if (this.dead) throw new Crash("dead already");
  }
}

interface WorldFile {
  readonly format: "raw" | "qcow2";
  readonly sizeBytes: Bytes;
  /** Which bytes are in it, by a name. */
  readonly content: string;
}

export class World {
  readonly captures = new Map<string, { readonly vm: VmUid; phase: "open" | "taken" }>();
  readonly power = new Map<VmUid, VmPower["power"]>();
  readonly files = new Map<string, WorldFile>();
  readonly nvram = new Set<string>();
  readonly manifests = new Map<string, unknown>();
  readonly journal: (JournalItem & { readonly bytes: Uint8Array })[] = [];
  readonly adoptable = new Map<string, Adopted>();
  readonly adopted = new Set<VmUid>();
  /** Restores that have been started, so that a test can hold one open. */
  holdRestores: Promise<void> = Promise.resolve();
  holdCaptures: Promise<void> = Promise.resolve();
  /** Point name → how its capture fails. */
  readonly failing = new Map<string, StillpointError>();
  guardAway = false;
  repositoryAway = false;
  startFails: StillpointError | null = null;

  constructor() {
    this.append("format", {});
  }

  append(kind: string, payload: unknown): void {
    const head = this.head();
    const entry = sealed(head, kind, payload);
    this.journal.push({ ...entry, previousHash: head.hash, kind, payload });
  }

  head(): { readonly number: number; readonly hash: string } {
    const last = this.journal.at(-1);
    return last ? { number: last.number, hash: last.hash } : { number: 0, hash: "" };
  }
}

function sealed(head: { readonly number: number; readonly hash: string }, kind: string, payload: unknown) {
  const content = { number: head.number + 1, previousHash: head.hash, kind, payload };
  const raw = Buffer.from(JSON.stringify(content));
  return { number: content.number, hash: createHash("sha256").update(raw).digest("hex"), bytes: raw };
}

export function worldJournal(world: World, gate: Gate): Journal {
  return {
    seal: sealed,
    publish: async (entry) => {
      await gate.step(`journal.publish`);
      if (world.repositoryAway) throw new StillpointError("RepositoryUnavailable", "The repository is away.");
      const there = world.journal[entry.number - 1];
      if (there && there.hash !== entry.hash)
        throw new StillpointError("RepositoryFenced", `Entry ${entry.number} is somebody else's.`);
      if (entry.number > world.journal.length + 1) throw new Error(`entry ${entry.number} would leave a gap`);
      if (!there) {
        const { number, previousHash, kind, payload } = JSON.parse(Buffer.from(entry.bytes).toString()) as JournalItem;
        world.journal.push({ number, hash: entry.hash, previousHash, kind, payload, bytes: entry.bytes });
      }
      await gate.step(`journal.published`);
    },
  };
}

export function worldRepository(world: World, gate: Gate): RepositoryReads {
  return {
    journalHead: async () => {
      gate.alive();
      if (world.repositoryAway) throw new StillpointError("RepositoryUnavailable", "The repository is away.");
      return world.head();
    },
    readJournal: async function* (from = 1) {
      for (const entry of world.journal.slice(from - 1)) {
        gate.alive();
        yield entry;
      }
    },
    readManifest: async (hash) => {
      gate.alive();
      const manifest = world.manifests.get(hash);
      if (manifest === undefined) throw new StillpointError("RepositoryDamaged", `The manifest ${hash} is missing.`);
      return manifest;
    },
  };
}

function needGuard(world: World): void {
  if (world.guardAway) throw new StillpointError("HypervisorUnavailable", "The guard does not answer.");
}

export function worldCaptures(world: World, gate: Gate): Captures {
  const undo = async (name: string, capture: string) => {
    await gate.step(`captures.${name}`);
    needGuard(world);
    world.captures.delete(capture);
    await gate.step(`captures.${name} done`);
  };
  return {
    run: (job, hooks, signal) => runCapture(world, gate, job, hooks, signal),
    release: (intent) => undo("release", intent.capture),
    giveUp: (intent) => undo("giveUp", intent.capture),
  };
}

async function runCapture(
  world: World,
  gate: Gate,
  job: CaptureJob,
  hooks: CaptureHooks,
  signal: AbortSignal,
): Promise<Captured> {
  const { capture } = job.intent;
  await gate.step("capture.begin");
  needGuard(world);
  if (job.resumed && world.captures.get(capture)?.phase !== "taken") {
    world.captures.delete(capture);
    throw new StillpointError("VMRestorePointInternalError", "The service ended before the point in time.");
  }
  if (!job.resumed) {
    await hooks.savePlan({ disks: job.disks.map(({ disk }) => disk.diskUid) });
    world.captures.set(capture, { vm: job.vm.vmUid, phase: "open" });
    await gate.step("capture.opened");
    const failure = world.failing.get(job.point.name);
    if (failure) {
      world.captures.delete(capture);
      throw failure;
    }
    world.captures.set(capture, { vm: job.vm.vmUid, phase: "taken" });
    await gate.step("capture.taken");
  }
  await hooks.taken("2026-01-01T00:00:01.000Z");
  for (const percent of [10, 50, 90]) {
    signal.throwIfAborted();
    hooks.progress(percent);
    await gate.step(`capture.copy ${percent}`);
  }
  await world.holdCaptures;
  signal.throwIfAborted();
  const captured = capturedFrom(world, job);
  world.manifests.set(captured.manifest, { point: job.point.uid });
  await gate.step("capture.manifest");
  return captured;
}

function capturedFrom(world: World, job: CaptureJob): Captured {
  const disks: DiskRestorePoint[] = job.disks.map(({ disk, attached }) => ({
    id: `${job.point.id}/diskRestorePoints/${disk.name}_${job.point.uid}` as DiskRestorePoint["id"],
    name: `${disk.name}_${job.point.uid}`,
    diskUid: disk.diskUid,
    diskId: disk.id,
    diskName: disk.name,
    lun: attached.lun,
    caching: attached.caching,
    osType: disk.osType,
    hyperVGeneration: disk.hyperVGeneration,
    sizeBytes: disk.sizeBytes,
    rawFileBytes: disk.rawFileBytes,
    format: disk.format,
    sku: disk.sku,
    lineage: "lineage",
    tree: { content: world.files.get(disk.path ?? "")?.content ?? "?" },
  }));
  const anchors: Anchor[] = disks.map((disk) => ({
    diskUid: disk.diskUid,
    pointUid: job.point.uid,
    tree: disk.tree,
    lineage: disk.lineage,
    bitmap: `sp-${job.point.uid}`,
    node: "node",
    sizeBytes: disk.sizeBytes,
  }));
  const nvram = job.vm.nvramPath === null ? null : { nvram: job.vm.nvramPath };
  const manifest = createHash("sha256").update(job.point.uid).digest("hex");
  return { manifest, disks, nvram, record: recordOf(job), anchors };
}

function recordOf(job: CaptureJob): PointRecord {
  return {
    schema: 1,
    requestedMode: job.point.requestedMode,
    reachedMode: "CrashConsistent",
    modeReason: "requested",
    startedAt: job.point.timeCreated,
    pointInTimeAt: "2026-01-01T00:00:01.000Z",
    timeToPointInTimeMs: 1,
    timeToDurableMs: 2,
    transactionMs: 1,
    stallMs: 1,
    freeze: null,
    hypervisor: { qemuVersion: "7.2.22", accelerator: "tcg", statusAtInstant: "running" },
    disks: [],
    excludedDisks: job.point.excludeDisks,
    notCaptured: ["the state of the TPM tpm0"],
    alarms: [],
  };
}

export function worldMachines(world: World, gate: Gate): Machines {
  const call = async (name: string, work: () => void) => {
    await gate.step(`machines.${name}`);
    needGuard(world);
    work();
    await gate.step(`machines.${name} done`);
  };
  return {
    start: (vm, disks) =>
      call("start", () => {
        if (world.startFails) throw world.startFails;
        for (const disk of disks)
          if (!world.files.has(disk.path ?? "")) throw new Error(`start without the file ${disk.path}`);
        world.power.set(vm.vmUid, "running");
      }),
    powerOff: (vm) => call("powerOff", () => void world.power.set(vm, "stopped")),
    deallocate: (vm) => call("deallocate", () => void world.power.delete(vm)),
    forget: (vm) => call("forget", () => void world.power.delete(vm)),
    power: async (vm) => {
      gate.alive();
      needGuard(world);
      return { power: world.power.get(vm) ?? "deallocated", reason: null, agent: "unknown" };
    },
    adopt: async (vm, qmpSocket) => {
      await gate.step("machines.adopt");
      needGuard(world);
      const found = world.adoptable.get(qmpSocket);
      if (!found) throw new StillpointError("HypervisorUnavailable", `${qmpSocket} sent no greeting within 5 s.`);
      world.adopted.add(vm);
      world.power.set(vm, "running");
      await gate.step("machines.adopted");
      return found;
    },
    release: (vm) =>
      call("release", () => {
        world.adopted.delete(vm);
        world.power.delete(vm);
      }),
    resizeOnline: (_vm, disk, sizeBytes) => call("resize", () => grow(world, disk.path ?? "", sizeBytes)),
  };
}

function grow(world: World, path: string, sizeBytes: Bytes): void {
  const file = world.files.get(path);
  if (!file) throw new Error(`no file ${path}`);
  world.files.set(path, { ...file, sizeBytes });
}

export function worldImages(world: World, gate: Gate): Images {
  return {
    resolve: async (uri) => uri.replace("pool://host1/pool/", "/pool/"),
    confine: async (path) => {
      if (path.startsWith("/pool/")) return path;
      throw new StillpointError("InvalidParameter", `${path} lies in no pool.`);
    },
    newPath: (uid, _sku, format) => `/pool/${uid}.${format}`,
    inspect: async (path) => {
      gate.alive();
      const file = world.files.get(path);
      if (!file) throw new StillpointError("InvalidParameter", `${path} does not exist.`, { target: "sourceUri" });
      return { format: file.format, sizeBytes: file.sizeBytes, rawFileBytes: null };
    },
    createEmpty: async (path, format, sizeBytes) => {
      await gate.step("images.createEmpty");
      world.files.set(path, { format, sizeBytes, content: `empty ${path}` });
      await gate.step("images.created");
    },
    grow: async (path, _format, sizeBytes) => {
      await gate.step("images.grow");
      grow(world, path, sizeBytes);
      await gate.step("images.grown");
    },
    remove: async (path) => {
      await gate.step("images.remove");
      world.files.delete(path);
      world.nvram.delete(path);
      await gate.step("images.removed");
    },
    nvramFits: async () => true,
    createNvram: async (vm) => {
      await gate.step("images.createNvram");
      world.nvram.add(`/nvram/${vm}`);
      return `/nvram/${vm}`;
    },
  };
}

export function worldRestores(world: World, gate: Gate): Restores {
  return {
    restoreDisk: async (source, target, progress, signal) => {
      await gate.step("restores.begin");
      progress(0.5);
      await world.holdRestores;
      signal.throwIfAborted();
      await gate.step("restores.copied");
      const { content } = source.tree as { readonly content: string };
      world.files.set(target.path, { format: target.format, sizeBytes: target.sizeBytes, content });
      await gate.step("restores.renamed");
      progress(1);
    },
    nvramSizeBytes: () => bytes(540_672),
    restoreNvram: async (_tree, vm) => {
      await gate.step("restores.nvram");
      world.nvram.add(`/nvram/${vm}`);
      return `/nvram/${vm}`;
    },
  };
}

/** The catalog seen by a service that may die right before a transaction, or right after it is durable. */
export function gatedCatalog(catalog: Catalog, gate: Gate): Catalog {
  return {
    transaction: async (work) => {
      await gate.step("catalog.transaction");
      const result = await catalog.transaction((tx) => {
        gate.alive();
        return work(tx);
      });
      await gate.step("catalog.committed");
      return result;
    },
    read: async (work) => {
      gate.alive();
      return catalog.read(work);
    },
    close: () => catalog.close(),
  };
}

/** Time that costs none: sleeping yields to everything else that is ready. */
export const fastClock: Clock = {
  now: () => new Date("2026-01-01T00:00:00.000Z"),
  monotonicMs: () => 0,
  sleep: async (_ms, signal) => {
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    signal?.throwIfAborted();
  },
};

/** Reproducible ids: the n-th uuid of a seed is always the same. */
export function seededRandom(seed: string): Random {
  let n = 0;
  const next = () => createHash("sha256").update(`${seed}/${n++}`).digest();
  return {
    uuid: () =>
      next()
        .toString("hex")
        .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12}).*$/, "$1-$2-$3-$4-$5"),
    bytes: (count) => next().subarray(0, count),
  };
}

export const silentLog: Log = { info: () => {}, warn: () => {}, error: () => {} };

export const GIB = bytes(1024 ** 3);
export type Uids = DiskUid | VmUid | PointUid;
