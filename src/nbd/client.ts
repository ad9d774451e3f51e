import { StillpointError } from "../base/index.ts";
import { type Connection, openConnection } from "./connection.ts";
import type { Session } from "./handshake.ts";
import type { StatusRun } from "./replies.ts";
import {
  CMD_BLOCK_STATUS,
  CMD_FLAG_NO_HOLE,
  CMD_FLUSH,
  CMD_READ,
  CMD_TRIM,
  CMD_WRITE,
  CMD_WRITE_ZEROES,
  FLAG_READ_ONLY,
  FLAG_SEND_FLUSH,
  FLAG_SEND_TRIM,
  FLAG_SEND_WRITE_ZEROES,
  MAX_STRING_BYTES,
} from "./wire.ts";

/**
 * `base:allocation`: the range reads as zeroes. The other bit of that context, HOLE (1), has no name here on purpose: it
 * says "not allocated" and nothing about the content, so nothing may ever be skipped because of it.
 */
export const STATE_ZERO = 2;
/** `qemu:dirty-bitmap:*`: the range was written since the bitmap was started. */
export const STATE_DIRTY = 1;

export interface NbdOptions {
  readonly socketPath: string;
  readonly exportName: string;
  /** Such as `base:allocation` and `qemu:dirty-bitmap:NAME`. One that the export does not have is an error. */
  readonly metaContexts?: readonly string[];
  /** Requests in flight (default 8); more wait their turn. Measured best: 4-8 requests of 256 KiB-1 MiB. */
  readonly depth?: number;
  /** Longest wait for one answer, and for the handshake (default 60 s). It ends the connection: nothing is known then. */
  readonly requestTimeoutMs?: number;
}

export interface NbdExtent {
  readonly offset: number;
  readonly length: number;
  /** Bits of the context: STATE_ZERO, or STATE_DIRTY. */
  readonly flags: number;
}

/**
 * One export of one server. Ranges must lie inside it and be multiples of the server's block size. Any violation of the
 * protocol, a late answer or a lost socket rejects all that is outstanding and all that comes after. Errors:
 * HypervisorUnavailable (the connection is gone), DeadlineExceeded, InsufficientSpace (ENOSPC), InternalError (the
 * server refused this one request; the connection goes on).
 */
export interface NbdClient {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly minBlockBytes: number;
  /** Fills `target` from `offset`. What it holds after a rejection is undefined. */
  readInto(offset: number, target: Buffer): Promise<void>;
  read(offset: number, length: number): Promise<Buffer>;
  /** The buffer may be used again when it resolves. Durable only after {@link NbdClient.flush}. */
  write(offset: number, data: Uint8Array): Promise<void>;
  /** Makes the range read as zeroes; with `allocate` its space stays reserved. */
  zero(offset: number, length: number, options?: { readonly allocate?: boolean }): Promise<void>;
  /** The content of the range is no longer needed: it may read as anything. */
  trim(offset: number, length: number): Promise<void>;
  /** Every write that resolved before the call is durable when it returns. */
  flush(): Promise<void>;
  /** Sorted, adjoining runs that cover the range exactly; equal neighbours are joined. */
  extents(context: string, offset: number, length: number): AsyncIterable<NbdExtent>;
  /** Says goodbye and closes the socket; what is outstanding is rejected. Never throws; may be called again. */
  close(): Promise<void>;
}

/** A block status or a write of zeroes of one request: both are cheap per byte, and lengths are 32-bit. */
const LONG_BYTES = 1024 * 1024 * 1024;

/**
 * Connects to an export on a unix socket. Throws HypervisorUnavailable when the server is not there, has no such export
 * or context, or is no proper NBD server; DeadlineExceeded when it is silent.
 */
export async function connectNbd(options: NbdOptions): Promise<NbdClient> {
  const metaContexts = options.metaContexts ?? [];
  for (const name of [options.exportName, ...metaContexts])
    if (Buffer.byteLength(name) > MAX_STRING_BYTES)
      throw new StillpointError("InternalError", "An NBD name is longer than 4096 bytes.");
  const connection = await openConnection({
    socketPath: options.socketPath,
    exportName: options.exportName,
    metaContexts,
    depth: options.depth ?? 8,
    requestTimeoutMs: options.requestTimeoutMs ?? 60_000,
  });
  return client(connection);
}

function client(connection: Connection): NbdClient {
  const { session } = connection;
  const readInto = (offset: number, target: Buffer) =>
    inPieces(session, offset, target, (at, piece) =>
      connection.perform({
        command: CMD_READ,
        name: "read",
        offset: at,
        length: piece.length,
        target: piece as Buffer,
      }),
    );
  return {
    sizeBytes: session.sizeBytes,
    readOnly: (session.flags & FLAG_READ_ONLY) !== 0,
    minBlockBytes: session.minBlockBytes,
    readInto,
    read: async (offset, length) => {
      const target = Buffer.allocUnsafe(length);
      await readInto(offset, target);
      return target;
    },
    write: (offset, data) =>
      inPieces(session, offset, data, (at, piece) =>
        connection.perform({ command: CMD_WRITE, name: "write", offset: at, length: piece.length, data: piece }),
      ),
    zero: (offset, length, options) => {
      const flags = options?.allocate ? CMD_FLAG_NO_HOLE : 0;
      return over(connection, FLAG_SEND_WRITE_ZEROES, CMD_WRITE_ZEROES, "write of zeroes", offset, length, flags);
    },
    trim: (offset, length) => over(connection, FLAG_SEND_TRIM, CMD_TRIM, "trim", offset, length, 0),
    flush: async () => {
      needs(session, FLAG_SEND_FLUSH, "flush");
      await connection.perform({ command: CMD_FLUSH, name: "flush", offset: 0, length: 0 });
    },
    extents: (context, offset, length) => joined(status(connection, context, offset, length)),
    close: () => connection.close(),
  };
}

/** Runs `step` on pieces that fit one request, all at once: the connection's depth holds them back. */
async function inPieces(
  session: Session,
  offset: number,
  data: Uint8Array,
  step: (offset: number, piece: Uint8Array) => Promise<unknown>,
): Promise<void> {
  checkRange(session, offset, data.length);
  const size = session.maxPayloadBytes;
  if (data.length <= size) return void (await step(offset, data));
  const pieces: Promise<unknown>[] = [];
  for (let at = 0; at < data.length; at += size) pieces.push(step(offset + at, data.subarray(at, at + size)));
  await Promise.all(pieces);
}

/** A request without a payload over any length, one piece after the other. */
async function over(
  connection: Connection,
  flag: number,
  command: number,
  name: string,
  offset: number,
  length: number,
  flags: number,
): Promise<void> {
  needs(connection.session, flag, name);
  checkRange(connection.session, offset, length);
  for (let at = offset; at < offset + length; at += LONG_BYTES)
    await connection.perform({ command, name, offset: at, length: Math.min(LONG_BYTES, offset + length - at), flags });
}

/** The runs as the server tells them. Each answer tells at least one byte, so the loop ends. */
async function* status(
  connection: Connection,
  context: string,
  offset: number,
  length: number,
): AsyncGenerator<NbdExtent> {
  const id = [...connection.session.contexts].find(([, name]) => name === context)?.[0];
  if (id === undefined) throw new StillpointError("InternalError", `The meta context '${context}' was not asked for.`);
  checkRange(connection.session, offset, length);
  for (let at = offset; at < offset + length; ) {
    const asked = Math.min(LONG_BYTES, offset + length - at);
    const ask = { command: CMD_BLOCK_STATUS, name: "block status", offset: at, length: asked };
    const runs: readonly StatusRun[] = (await connection.perform(ask)).status.get(id) ?? [];
    for (const run of runs) {
      yield { offset: at, length: run.length, flags: run.flags };
      at += run.length;
    }
  }
}

async function* joined(runs: AsyncIterable<NbdExtent>): AsyncGenerator<NbdExtent> {
  let held = null as NbdExtent | null;
  for await (const run of runs) {
    if (held?.flags === run.flags) {
      held = { offset: held.offset, length: held.length + run.length, flags: run.flags };
    } else {
      if (held) yield held;
      held = run;
    }
  }
  if (held) yield held;
}

function needs(session: Session, flag: number, name: string): void {
  if (!(session.flags & flag)) throw new StillpointError("InternalError", `The NBD export does not take a ${name}.`);
}

function checkRange(session: Session, offset: number, length: number): void {
  const unit = session.minBlockBytes;
  const range = `NBD range ${offset}+${length}`;
  if (!Number.isSafeInteger(offset) || offset < 0 || length < 1 || offset + length > session.sizeBytes)
    throw new StillpointError("InternalError", `${range} is not inside the export's ${session.sizeBytes} bytes.`);
  if (offset % unit || length % unit)
    throw new StillpointError("InternalError", `${range} is no multiple of ${unit} bytes.`);
}
