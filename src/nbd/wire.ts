/** Numbers and frames of the NBD protocol (fixed newstyle, structured replies). All integers are big-endian. */

export const MAGIC_SERVER = 0x4e42444d41474943n; // "NBDMAGIC"
export const MAGIC_OPTION = 0x49484156454f5054n; // "IHAVEOPT"
export const MAGIC_OPTION_REPLY = 0x0003e889045565a9n;
export const MAGIC_REQUEST = 0x25609513;
export const MAGIC_SIMPLE_REPLY = 0x67446698;
export const MAGIC_STRUCTURED_REPLY = 0x668e33ef;

export const HANDSHAKE_FIXED_NEWSTYLE = 1;
export const HANDSHAKE_NO_ZEROES = 2;

export const OPT_GO = 7;
export const OPT_STRUCTURED_REPLY = 8;
export const OPT_SET_META_CONTEXT = 10;

export const REP_ACK = 1;
export const REP_INFO = 3;
export const REP_META_CONTEXT = 4;
export const REP_ERROR_BIT = 0x8000_0000;

export const INFO_EXPORT = 0;
export const INFO_BLOCK_SIZE = 3;

export const FLAG_HAS_FLAGS = 1;
export const FLAG_READ_ONLY = 2;
export const FLAG_SEND_FLUSH = 4;
export const FLAG_SEND_TRIM = 32;
export const FLAG_SEND_WRITE_ZEROES = 64;

export const CMD_READ = 0;
export const CMD_WRITE = 1;
export const CMD_DISCONNECT = 2;
export const CMD_FLUSH = 3;
export const CMD_TRIM = 4;
export const CMD_WRITE_ZEROES = 6;
export const CMD_BLOCK_STATUS = 7;

/** Keep the range allocated when it is zeroed. */
export const CMD_FLAG_NO_HOLE = 2;

export const CHUNK_FLAG_DONE = 1;
export const CHUNK_NONE = 0;
export const CHUNK_OFFSET_DATA = 1;
export const CHUNK_OFFSET_HOLE = 2;
export const CHUNK_BLOCK_STATUS = 5;
export const CHUNK_ERROR_BIT = 0x8000;
export const CHUNK_ERROR_OFFSET = 0x8002;

/** The protocol's own limit for any string: export names, contexts, messages. */
export const MAX_STRING_BYTES = 4096;

export const REQUEST_HEADER_BYTES = 28;

/** A request's header. The handle is a safe integer of ours that the server sends back. */
export function requestHeader(command: number, flags: number, handle: number, offset: number, length: number): Buffer {
  const frame = Buffer.allocUnsafe(REQUEST_HEADER_BYTES);
  frame.writeUInt32BE(MAGIC_REQUEST, 0);
  frame.writeUInt16BE(flags, 4);
  frame.writeUInt16BE(command, 6);
  frame.writeBigUInt64BE(BigInt(handle), 8);
  frame.writeBigUInt64BE(BigInt(offset), 16);
  frame.writeUInt32BE(length, 24);
  return frame;
}

/** One option of the handshake. */
export function optionFrame(option: number, data: Buffer): Buffer {
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(MAGIC_OPTION, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(data.length, 12);
  return Buffer.concat([head, data]);
}

/** A string with its 32-bit length in front. */
export function lengthPrefixed(text: string): Buffer {
  const body = Buffer.from(text, "utf8");
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length, 0);
  return Buffer.concat([length, body]);
}

export function uint16(n: number): Buffer {
  const out = Buffer.alloc(2);
  out.writeUInt16BE(n, 0);
  return out;
}

export function uint32(n: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(n, 0);
  return out;
}
