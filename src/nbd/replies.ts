import { type Coverage, createCoverage } from "./coverage.ts";
import { violation } from "./errors.ts";
import type { Feed, Session } from "./handshake.ts";
import {
  CHUNK_BLOCK_STATUS,
  CHUNK_ERROR_BIT,
  CHUNK_ERROR_OFFSET,
  CHUNK_FLAG_DONE,
  CHUNK_NONE,
  CHUNK_OFFSET_DATA,
  CHUNK_OFFSET_HOLE,
  CMD_BLOCK_STATUS,
  CMD_READ,
  MAGIC_SIMPLE_REPLY,
  MAGIC_STRUCTURED_REPLY,
  MAX_STRING_BYTES,
} from "./wire.ts";

/** One run of a block status answer, relative to nothing: it follows the one before. */
export interface StatusRun {
  readonly length: number;
  readonly flags: number;
}

/** A request whose answer is outstanding. */
export interface Pending {
  readonly command: number;
  readonly offset: number;
  readonly length: number;
  /** Where a read's bytes go: exactly `length` of them. */
  readonly target: Buffer | null;
  readonly coverage: Coverage | null;
  readonly status: Map<number, readonly StatusRun[]>;
  failure: { readonly errno: number; readonly message: string } | null;
}

export function newPending(command: number, offset: number, length: number, target: Buffer | null): Pending {
  const coverage = command === CMD_READ ? createCoverage(length) : null;
  return { command, offset, length, target, coverage, status: new Map(), failure: null };
}

/** The open requests, as the parser needs them. */
export interface PendingTable {
  find(handle: number): Pending | undefined;
  /** The answer is whole: well or with `failure` set. */
  settle(handle: number): void;
}

/** QEMU's own limit: 1 MiB of 8-byte runs in one answer. */
const MAX_STATUS_BYTES = 4 + 1024 * 1024;
const MAX_ERROR_BYTES = 6 + MAX_STRING_BYTES + 8;

/** Parses everything that comes after the handshake, for as long as the connection lives. */
export function* replies(session: Session, table: PendingTable): Feed<never> {
  const head = Buffer.alloc(20);
  const simple = head.subarray(0, 16);
  const rest = head.subarray(16, 20);
  for (;;) {
    yield simple;
    const magic = head.readUInt32BE(0);
    const handle = readHandle(head);
    if (magic !== MAGIC_SIMPLE_REPLY && magic !== MAGIC_STRUCTURED_REPLY)
      throw violation("a reply has a wrong magic number");
    const pending = table.find(handle);
    if (!pending) throw violation("it answers a request that was not made");
    if (magic === MAGIC_SIMPLE_REPLY) {
      yield* simpleReply(session, pending, head.readUInt32BE(4));
      table.settle(handle);
      continue;
    }
    if (!session.structured) throw violation("it sends a structured reply that was not agreed on");
    yield rest;
    const [flags, type, length] = [head.readUInt16BE(4), head.readUInt16BE(6), head.readUInt32BE(16)];
    yield* chunk(session, pending, type, length, (flags & CHUNK_FLAG_DONE) !== 0);
    if (!(flags & CHUNK_FLAG_DONE)) continue;
    checkWhole(session, pending);
    table.settle(handle);
  }
}

/** Handles are small counters of ours: one that does not fit a safe integer was never sent. */
function readHandle(head: Buffer): number {
  const high = head.readUInt32BE(8);
  return high < 0x20_0000 ? high * 0x1_0000_0000 + head.readUInt32BE(12) : -1;
}

function* simpleReply(session: Session, pending: Pending, errno: number): Feed<void> {
  const needsChunks = pending.command === CMD_READ || pending.command === CMD_BLOCK_STATUS;
  if (session.structured && needsChunks)
    throw violation("it answers with a simple reply where a structured one is due");
  if (pending.coverage && hasAnswer(pending)) throw violation("it answers a request twice");
  if (errno !== 0) pending.failure = { errno, message: "" };
  else if (pending.target) yield pending.target;
}

const hasAnswer = (pending: Pending) => pending.failure !== null || pending.status.size > 0;

function* chunk(session: Session, pending: Pending, type: number, length: number, done: boolean): Feed<void> {
  if (type & CHUNK_ERROR_BIT) return yield* errorChunk(pending, type, length);
  switch (type) {
    case CHUNK_NONE:
      if (length !== 0 || !done) throw violation("an empty chunk carries data or does not end its reply");
      return;
    case CHUNK_OFFSET_DATA:
      return yield* dataChunk(pending, length);
    case CHUNK_OFFSET_HOLE:
      return yield* holeChunk(pending, length);
    case CHUNK_BLOCK_STATUS:
      return yield* statusChunk(session, pending, length);
    default:
      throw violation(`a chunk of the unknown type ${type}`);
  }
}

/** The place of a chunk inside the request, checked against it and against what came before. */
function place(pending: Pending, offset: bigint, length: number): number {
  const start = Number(offset - BigInt(pending.offset));
  if (!pending.coverage || !pending.target) throw violation("it sends data for a request that reads none");
  if (start < 0 || length < 1 || start + length > pending.length)
    throw violation("a chunk of a read lies outside the request");
  pending.coverage.add(start, start + length);
  return start;
}

function* dataChunk(pending: Pending, length: number): Feed<void> {
  if (length < 9) throw violation("a data chunk without data");
  const head = Buffer.allocUnsafe(8);
  yield head;
  const start = place(pending, head.readBigUInt64BE(0), length - 8);
  if (pending.target) yield pending.target.subarray(start, start + length - 8);
}

function* holeChunk(pending: Pending, length: number): Feed<void> {
  if (length !== 12) throw violation("a hole chunk of a wrong length");
  const body = Buffer.allocUnsafe(12);
  yield body;
  const size = body.readUInt32BE(8);
  const start = place(pending, body.readBigUInt64BE(0), size);
  pending.target?.fill(0, start, start + size);
}

function* errorChunk(pending: Pending, type: number, length: number): Feed<void> {
  if (length < 6 || length > MAX_ERROR_BYTES) throw violation("an error chunk of a wrong length");
  const body = Buffer.alloc(length);
  yield body;
  const errno = body.readUInt32BE(0);
  const messageBytes = body.readUInt16BE(4);
  const tail = type === CHUNK_ERROR_OFFSET ? 8 : 0;
  if (errno === 0) throw violation("an error chunk without an error");
  if (messageBytes + 6 + tail > length || messageBytes > MAX_STRING_BYTES)
    throw violation("an error message longer than its chunk");
  pending.failure ??= { errno, message: body.toString("utf8", 6, 6 + messageBytes) };
}

function* statusChunk(session: Session, pending: Pending, length: number): Feed<void> {
  if (pending.command !== CMD_BLOCK_STATUS) throw violation("it sends block status that was not asked for");
  if (length < 12 || length > MAX_STATUS_BYTES || (length - 4) % 8 !== 0)
    throw violation("a block status chunk of a wrong length");
  const body = Buffer.alloc(length);
  yield body;
  const context = body.readUInt32BE(0);
  if (!session.contexts.has(context)) throw violation("block status of an unknown meta context");
  if (pending.status.has(context)) throw violation("block status of a meta context twice");
  pending.status.set(context, runs(session, pending, body));
}

/** The last run may reach beyond the request (it is cut), never beyond the export; no run is empty. */
function runs(session: Session, pending: Pending, body: Buffer): readonly StatusRun[] {
  const out: StatusRun[] = [];
  let told = 0;
  for (let at = 4; at < body.length; at += 8) {
    const length = body.readUInt32BE(at);
    if (length === 0) throw violation("a block status run of length 0");
    if (told >= pending.length) throw violation("block status goes on beyond the request");
    if (pending.offset + told + length > session.sizeBytes)
      throw violation("block status beyond the end of the export");
    out.push({ length: Math.min(length, pending.length - told), flags: body.readUInt32BE(at + 4) });
    told += length;
  }
  return out;
}

function checkWhole(session: Session, pending: Pending): void {
  if (pending.failure) return;
  if (pending.coverage && !pending.coverage.complete()) throw violation("it left bytes of a read out");
  if (pending.command === CMD_BLOCK_STATUS && pending.status.size !== session.contexts.size)
    throw violation("it left a meta context out of its block status");
}
