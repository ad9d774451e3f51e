import { StillpointError } from "../base/index.ts";
import { printable, violation } from "./errors.ts";
import {
  FLAG_HAS_FLAGS,
  HANDSHAKE_FIXED_NEWSTYLE,
  HANDSHAKE_NO_ZEROES,
  INFO_BLOCK_SIZE,
  INFO_EXPORT,
  lengthPrefixed,
  MAGIC_OPTION,
  MAGIC_OPTION_REPLY,
  MAGIC_SERVER,
  MAX_STRING_BYTES,
  OPT_GO,
  OPT_SET_META_CONTEXT,
  OPT_STRUCTURED_REPLY,
  optionFrame,
  REP_ACK,
  REP_ERROR_BIT,
  REP_INFO,
  REP_META_CONTEXT,
  uint16,
  uint32,
} from "./wire.ts";

/** What was agreed with the server. */
export interface Session {
  readonly sizeBytes: number;
  readonly flags: number;
  readonly structured: boolean;
  /** Smallest unit of an offset and a length: a power of two. */
  readonly minBlockBytes: number;
  /** Largest payload of one read or write. */
  readonly maxPayloadBytes: number;
  /** Context id → name. */
  readonly contexts: ReadonlyMap<number, string>;
}

/** A parser that is fed: it yields the buffer it wants filled next. So reading stays linear and needs no queue. */
export type Feed<T> = Generator<Buffer, T, void>;

const MAX_REPLIES_PER_OPTION = 64;
const DEFAULT_MAX_PAYLOAD = 32 * 1024 * 1024;

/** Negotiates an export: structured replies, meta contexts, GO. `send` queues bytes to the server. */
export function* handshake(
  exportName: string,
  metaContexts: readonly string[],
  send: (frame: Buffer) => void,
): Feed<Session> {
  const hello = Buffer.alloc(18);
  yield hello;
  if (hello.readBigUInt64BE(0) !== MAGIC_SERVER) throw violation("it does not greet like an NBD server");
  if (hello.readBigUInt64BE(8) !== MAGIC_OPTION) throw violation("it speaks the oldstyle handshake");
  const flags = hello.readUInt16BE(16);
  if (!(flags & HANDSHAKE_FIXED_NEWSTYLE)) throw violation("it does not speak the fixed newstyle handshake");
  send(uint32(HANDSHAKE_FIXED_NEWSTYLE | (flags & HANDSHAKE_NO_ZEROES)));
  const structured = yield* structuredReplies(send);
  const contexts = yield* setMetaContexts(exportName, metaContexts, structured, send);
  return { structured, contexts, ...(yield* go(exportName, send)) };
}

interface OptionReply {
  readonly type: number;
  readonly data: Buffer;
}

/** The next reply to `option`, its length bounded before a byte of it is stored. */
function* optionReply(option: number): Feed<OptionReply> {
  const head = Buffer.alloc(20);
  yield head;
  if (head.readBigUInt64BE(0) !== MAGIC_OPTION_REPLY) throw violation("an option reply has a wrong magic number");
  if (head.readUInt32BE(8) !== option) throw violation("it answers another option than the one sent");
  const length = head.readUInt32BE(16);
  if (length > MAX_STRING_BYTES + 64) throw violation(`an option reply claims ${length} bytes`);
  const data = Buffer.alloc(length);
  yield data;
  return { type: head.readUInt32BE(12), data };
}

const isError = (type: number) => (type & REP_ERROR_BIT) !== 0;

function* structuredReplies(send: (frame: Buffer) => void): Feed<boolean> {
  send(optionFrame(OPT_STRUCTURED_REPLY, Buffer.alloc(0)));
  const { type, data } = yield* optionReply(OPT_STRUCTURED_REPLY);
  if (isError(type)) return false;
  if (type !== REP_ACK || data.length) throw violation("it answers the structured-reply option with something else");
  return true;
}

function* setMetaContexts(
  exportName: string,
  wanted: readonly string[],
  structured: boolean,
  send: (frame: Buffer) => void,
): Feed<ReadonlyMap<number, string>> {
  const found = new Map<number, string>();
  if (!wanted.length) return found;
  if (!structured)
    throw new StillpointError(
      "HypervisorUnavailable",
      "The NBD server offers no structured replies, so no block status.",
    );
  const queries = wanted.map(lengthPrefixed);
  send(
    optionFrame(OPT_SET_META_CONTEXT, Buffer.concat([lengthPrefixed(exportName), uint32(wanted.length), ...queries])),
  );
  const names = new Set(wanted);
  for (let n = 0; n <= wanted.length; n++) {
    const { type, data } = yield* optionReply(OPT_SET_META_CONTEXT);
    if (isError(type)) throw declined(exportName, "meta contexts", data);
    if (type === REP_ACK) {
      if (data.length) throw violation("an acknowledgement carries data");
      for (const name of names) throw missingContext(exportName, name);
      return found;
    }
    if (type !== REP_META_CONTEXT || data.length < 5) throw violation("a meta context reply is malformed");
    const [id, name] = [data.readUInt32BE(0), data.toString("utf8", 4)];
    if (!names.delete(name))
      throw violation(`it offers the meta context '${printable(name)}', which was not asked for`);
    if (found.has(id)) throw violation("two meta contexts have the same id");
    found.set(id, name);
  }
  throw violation("it does not end its list of meta contexts");
}

function* go(exportName: string, send: (frame: Buffer) => void): Feed<Omit<Session, "structured" | "contexts">> {
  send(optionFrame(OPT_GO, Buffer.concat([lengthPrefixed(exportName), uint16(1), uint16(INFO_BLOCK_SIZE)])));
  let size: { readonly sizeBytes: number; readonly flags: number } | null = null;
  let blocks = { minBlockBytes: 1, maxPayloadBytes: DEFAULT_MAX_PAYLOAD };
  for (let n = 0; n < MAX_REPLIES_PER_OPTION; n++) {
    const { type, data } = yield* optionReply(OPT_GO);
    if (isError(type)) throw declined(exportName, "the export", data);
    if (type === REP_ACK) {
      if (!size) throw violation("it did not tell the size of the export");
      return { ...size, ...blocks };
    }
    if (type !== REP_INFO || data.length < 2) throw violation("an information reply is malformed");
    const kind = data.readUInt16BE(0);
    if (kind === INFO_EXPORT) size = exportInfo(data);
    else if (kind === INFO_BLOCK_SIZE) blocks = blockSizes(data);
  }
  throw violation("it does not end its information about the export");
}

function exportInfo(data: Buffer): { readonly sizeBytes: number; readonly flags: number } {
  if (data.length !== 12) throw violation("the export information has a wrong length");
  const size = data.readBigUInt64BE(2);
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw violation(`the export claims a size of ${size} bytes`);
  const flags = data.readUInt16BE(10);
  if (!(flags & FLAG_HAS_FLAGS)) throw violation("the export has no transmission flags");
  return { sizeBytes: Number(size), flags };
}

function blockSizes(data: Buffer): { readonly minBlockBytes: number; readonly maxPayloadBytes: number } {
  if (data.length !== 14) throw violation("the block size information has a wrong length");
  const [min, max] = [data.readUInt32BE(2), data.readUInt32BE(10)];
  if (min < 1 || min > 65536 || (min & (min - 1)) !== 0) throw violation(`a minimum block size of ${min} bytes`);
  if (max < 65536 || max < min) throw violation(`a maximum payload of ${max} bytes`);
  return { minBlockBytes: min, maxPayloadBytes: Math.min(max - (max % min), DEFAULT_MAX_PAYLOAD) };
}

function declined(exportName: string, what: string, data: Buffer): StillpointError {
  const words = data.length ? `: ${printable(data.toString("utf8"))}` : "";
  return new StillpointError("HypervisorUnavailable", `The NBD server declines ${what} of '${exportName}'${words}.`);
}

function missingContext(exportName: string, name: string): StillpointError {
  return new StillpointError("HypervisorUnavailable", `The NBD export '${exportName}' has no meta context '${name}'.`);
}
