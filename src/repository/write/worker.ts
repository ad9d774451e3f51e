/** A worker thread: all hashing, compression and encryption of bulk data. It touches no file. */
import { parentPort, workerData } from "node:worker_threads";
import { CHUNK_BYTES } from "../../base/index.ts";
import { type KeyedHash, keyedHash, sealingKey } from "../../keys/index.ts";
import { openFrame, sealFrame } from "../format/frame.ts";
import { ID_BYTES } from "../format/node.ts";
import { FRAME_KIND, SLOT_BYTES } from "../format/pack.ts";
import {
  type DomainKeyMaterial,
  type FrameToOpen,
  type IdentifyRequest,
  type Input,
  type OpenFailure,
  type OpenRequest,
  type OpenResult,
  type Reply,
  type Request,
  type SealedFrame,
  type SealRequest,
  SLOT_IDS_AT,
  SLOT_OUT_AT,
  type WorkerSetup,
} from "./protocol.ts";

const slots = (workerData as WorkerSetup).slots.map((memory) => Buffer.from(memory));
const ZERO_CHUNK = Buffer.alloc(CHUNK_BYTES);
const hashes = new Map<string, { readonly chunk: KeyedHash; readonly node: KeyedHash }>();

function hashesOf(keys: DomainKeyMaterial) {
  let found = hashes.get(keys.domain);
  if (!found) {
    found = { chunk: keyedHash(keys.chunkIdKey), node: keyedHash(keys.nodeIdKey) };
    hashes.set(keys.domain, found);
  }
  return found;
}

function slotOf(number: number): Buffer {
  const slot = slots[number];
  if (!slot) throw new RangeError(`there is no slot ${number}`);
  return slot;
}

function inputOf(slot: number, input: Input): Buffer {
  return input.shared ? Buffer.from(input.shared, input.offset) : slotOf(slot).subarray(input.offset);
}

function identify(request: IdentifyRequest): void {
  const input = inputOf(request.slot, request.input);
  const ids = slotOf(request.slot).subarray(SLOT_IDS_AT);
  const hash = hashesOf(request.keys).chunk;
  for (let chunk = 0; chunk < request.chunks; chunk++) {
    const plain = input.subarray(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES);
    if (plain.equals(ZERO_CHUNK)) ids.fill(0, chunk * ID_BYTES, (chunk + 1) * ID_BYTES);
    else ids.set(hash(plain), chunk * ID_BYTES);
  }
}

function sealFrames(request: SealRequest): SealedFrame[] {
  const input = inputOf(request.slot, request.input);
  const out = slotOf(request.slot).subarray(SLOT_OUT_AT);
  const packKey = sealingKey(request.packKey);
  let offset = 0;
  return request.frames.map((frame) => {
    const plain = input.subarray(frame.from, frame.from + frame.length);
    const sealed = sealFrame(out.subarray(offset), { ...request, ...frame, packKey }, frame.slots, plain);
    const at = offset;
    offset += sealed.storedBytes;
    return { offset: at, ...sealed };
  });
}

function openFrames(request: OpenRequest): OpenResult {
  const out = Buffer.allocUnsafeSlow(request.outBytes);
  const failures: OpenFailure[] = [];
  request.frames.forEach((frame, index) => {
    const plain = openFrame({ ...frame, domain: request.keys.domain }, frame.slots, frame.sealed);
    if (typeof plain === "string")
      failures.push({ frame: index, slots: frame.takes.map((take) => take.slot), problem: plain });
    else {
      const wrong = takeSlots(frame, plain, out, request.keys);
      if (wrong.length > 0) failures.push({ frame: index, slots: wrong, problem: "its bytes are not the named ones" });
    }
  });
  return { out, failures };
}

/** Copies the wanted slots out, each after its bytes gave its id again; returns those that did not. */
function takeSlots(frame: FrameToOpen, plain: Buffer, out: Buffer, keys: DomainKeyMaterial): number[] {
  const table = Buffer.from(frame.slots.buffer, frame.slots.byteOffset, frame.slots.byteLength);
  const hash = frame.kind === FRAME_KIND.nodes ? hashesOf(keys).node : hashesOf(keys).chunk;
  const starts: number[] = [0];
  for (let at = ID_BYTES; at < table.length; at += SLOT_BYTES)
    starts.push((starts.at(-1) as number) + table.readUInt32LE(at));
  const wrong: number[] = [];
  for (const take of frame.takes) {
    const bytes = plain.subarray(starts[take.slot], starts[take.slot + 1]);
    const id = table.subarray(take.slot * SLOT_BYTES, take.slot * SLOT_BYTES + ID_BYTES);
    if (!hash(bytes).equals(id)) wrong.push(take.slot);
    else if (take.to >= 0) bytes.copy(out, take.to);
  }
  return wrong;
}

function work(request: Request): undefined | SealedFrame[] | OpenResult {
  switch (request.op) {
    case "identify":
      identify(request);
      return undefined;
    case "seal":
      return sealFrames(request);
    case "open":
      return openFrames(request);
  }
}

parentPort?.on("message", ({ job, request }: { job: number; request: Request }) => {
  let reply: Reply;
  try {
    reply = { job, result: work(request) };
  } catch (error) {
    reply = { job, error: (error as Error).stack ?? String(error) };
  }
  const handOver =
    "result" in reply && reply.result && "out" in reply.result && reply.result.out.length > 0
      ? [reply.result.out.buffer as ArrayBuffer]
      : [];
  parentPort?.postMessage(reply, handOver);
});
