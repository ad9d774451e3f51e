import { Worker } from "node:worker_threads";
import { StillpointError } from "../../base/index.ts";
import type { DomainKeys } from "../../keys/index.ts";
import {
  type DomainKeyMaterial,
  type IdentifyRequest,
  type OpenRequest,
  type OpenResult,
  type Reply,
  type Request,
  RUN_BYTES,
  type SealedFrame,
  type SealRequest,
  SLOT_BYTES_TOTAL,
  SLOT_IDS_AT,
  SLOT_OUT_AT,
} from "./protocol.ts";

/** Jobs given to a worker ahead, so that it never waits for the main thread. */
const JOBS_AHEAD = 2;
/** Runs under way per worker: one being hashed, one being packed, two being written or fetched. 2 MiB each. */
const SLOTS_PER_WORKER = 4;

/** Shared memory of one run under way. */
export interface Slot {
  readonly number: number;
  readonly input: Buffer;
  readonly ids: Buffer;
  readonly output: Buffer;
}

/** Worker threads, and the bounded memory that all writers of a repository share. */
export interface WorkerPool {
  readonly workers: number;
  /** Waits its turn: this is the back-pressure on everything that writes. */
  acquireSlot(): Promise<Slot>;
  releaseSlot(slot: Slot): void;
  identify(request: Omit<IdentifyRequest, "op">): Promise<void>;
  seal(request: Omit<SealRequest, "op">): Promise<readonly SealedFrame[]>;
  open(request: Omit<OpenRequest, "op">): Promise<OpenResult>;
  close(): Promise<void>;
}

export function keyMaterial(keys: DomainKeys): DomainKeyMaterial {
  return { domain: keys.domain, chunkIdKey: keys.chunkIdKey, nodeIdKey: keys.nodeIdKey };
}

interface Job {
  readonly number: number;
  readonly request: Request;
  readonly handOver: readonly ArrayBuffer[];
  resolve(result: never): void;
  reject(error: Error): void;
}

interface Lane {
  readonly worker: Worker;
  readonly jobs: Map<number, Job>;
}

export function workerPool(workers: number): WorkerPool {
  const slots = Array.from({ length: workers * SLOTS_PER_WORKER }, (_, number) => makeSlot(number));
  const freeSlots = slots.map(({ slot }) => slot);
  const slotWaiters: ((slot: Slot) => void)[] = [];
  /** Packing before hashing: what is begun leaves first. */
  const queues: { readonly packing: Job[]; readonly others: Job[] } = { packing: [], others: [] };
  let lanes: Lane[] | null = null;
  let broken: Error | null = null;
  let jobs = 0;

  function start(): Lane[] {
    const setup = { slots: slots.map(({ memory }) => memory) };
    const own = import.meta.url;
    const file = new URL(own.endsWith(".ts") ? "./worker.ts" : "./worker.js", own);
    return Array.from({ length: workers }, () => {
      const lane: Lane = { worker: new Worker(file, { workerData: setup }), jobs: new Map() };
      lane.worker.unref();
      lane.worker.on("message", (reply: Reply) => settle(lane, reply));
      lane.worker.on("error", (error) => fail(error));
      lane.worker.on("exit", (code) => fail(new Error(`a worker thread ended with code ${code}`)));
      return lane;
    });
  }

  function settle(lane: Lane, reply: Reply): void {
    const job = lane.jobs.get(reply.job);
    lane.jobs.delete(reply.job);
    if (lane.jobs.size === 0) lane.worker.unref(); // an idle worker keeps no process alive
    if ("error" in reply) job?.reject(new StillpointError("InternalError", `A worker thread failed: ${reply.error}`));
    else job?.resolve(reply.result as never);
    dispatch();
  }

  function fail(error: Error): void {
    broken ??= new StillpointError("InternalError", `The worker threads stopped: ${error.message}.`, { cause: error });
    const open = [...queues.packing.splice(0), ...queues.others.splice(0)];
    for (const lane of lanes ?? []) {
      open.push(...lane.jobs.values());
      lane.jobs.clear();
    }
    for (const job of open) job.reject(broken);
  }

  function dispatch(): void {
    while (lanes) {
      const lane = lanes.reduce((best, other) => (other.jobs.size < best.jobs.size ? other : best));
      if (lane.jobs.size >= JOBS_AHEAD) return;
      const job = queues.packing.shift() ?? queues.others.shift();
      if (!job) return;
      if (lane.jobs.size === 0) lane.worker.ref();
      lane.jobs.set(job.number, job);
      lane.worker.postMessage({ job: job.number, request: job.request }, [...job.handOver]);
    }
  }

  function run<T>(request: Request, queue: Job[], handOver: readonly ArrayBuffer[] = []): Promise<T> {
    if (broken) return Promise.reject(broken);
    lanes ??= start();
    return new Promise<T>((resolve, reject) => {
      queue.push({ number: jobs++, request, handOver, resolve, reject });
      dispatch();
    });
  }

  return {
    workers,
    acquireSlot: () => {
      const slot = freeSlots.pop();
      return slot ? Promise.resolve(slot) : new Promise((resolve) => slotWaiters.push(resolve));
    },
    releaseSlot: (slot) => {
      const next = slotWaiters.shift();
      if (next) next(slot);
      else freeSlots.push(slot);
    },
    identify: (request) => run({ op: "identify", ...request }, queues.others),
    seal: (request) => run({ op: "seal", ...request }, queues.packing),
    open: (request) =>
      run({ op: "open", ...request }, queues.others, wholeBuffers(request.frames.map((frame) => frame.sealed))),
    close: async () => {
      const ending = lanes ?? [];
      lanes = null;
      for (const { worker } of ending) worker.removeAllListeners("exit");
      fail(new Error("the repository was closed"));
      await Promise.all(ending.map(({ worker }) => worker.terminate()));
    },
  };
}

/** The memory that may be handed over: never a piece of a buffer that others use too, such as Node's own pool. */
function wholeBuffers(views: readonly Uint8Array[]): ArrayBuffer[] {
  const used = new Map<ArrayBufferLike, number>();
  for (const view of views) used.set(view.buffer, (used.get(view.buffer) ?? 0) + view.byteLength);
  return [...used].flatMap(([buffer, bytes]) =>
    buffer instanceof ArrayBuffer && bytes === buffer.byteLength ? [buffer] : [],
  );
}

function makeSlot(number: number): { readonly memory: SharedArrayBuffer; readonly slot: Slot } {
  const memory = new SharedArrayBuffer(SLOT_BYTES_TOTAL);
  return {
    memory,
    slot: {
      number,
      input: Buffer.from(memory, 0, RUN_BYTES),
      ids: Buffer.from(memory, SLOT_IDS_AT, SLOT_OUT_AT - SLOT_IDS_AT),
      output: Buffer.from(memory, SLOT_OUT_AT),
    },
  };
}
