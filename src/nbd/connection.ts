import { withDeadline } from "../base/index.ts";
import { type Channel, openChannel } from "./channel.ts";
import { closedByUs, refused } from "./errors.ts";
import { type Feed, handshake, type Session } from "./handshake.ts";
import { newPending, type Pending, replies } from "./replies.ts";
import { createSlots, type Slots } from "./slots.ts";
import { CMD_DISCONNECT, requestHeader } from "./wire.ts";

export interface ConnectionOptions {
  readonly socketPath: string;
  readonly exportName: string;
  readonly metaContexts: readonly string[];
  readonly depth: number;
  readonly requestTimeoutMs: number;
}

export interface Ask {
  readonly command: number;
  /** How a message calls it: `read`, `flush`. */
  readonly name: string;
  readonly offset: number;
  readonly length: number;
  readonly flags?: number;
  /** Where a read's bytes go. */
  readonly target?: Buffer;
  /** A write's bytes. */
  readonly data?: Uint8Array;
}

/** A negotiated connection on which requests run side by side. */
export interface Connection {
  readonly session: Session;
  /** One request and its whole answer. Throws what the server refused, or why the connection is gone. */
  perform(ask: Ask): Promise<Pending>;
  close(): Promise<void>;
}

const CLOSE_TIMEOUT_MS = 2000;

interface Outstanding {
  readonly pending: Pending;
  readonly resolve: () => void;
  readonly reject: (reason: Error) => void;
}

/** What is in flight, and the one reason why nothing can be any more. */
interface Flight {
  readonly open: Map<number, Outstanding>;
  readonly slots: Slots;
  goneBy: Error | null;
  lastHandle: number;
}

export async function openConnection(options: ConnectionOptions): Promise<Connection> {
  const flight: Flight = { open: new Map(), slots: createSlots(options.depth), goneBy: null, lastHandle: 0 };
  const agreed = Promise.withResolvers<Session>();
  const fail = (reason: Error) => {
    flight.goneBy ??= reason;
    agreed.reject(flight.goneBy);
    flight.slots.shut(flight.goneBy);
    for (const one of flight.open.values()) one.reject(flight.goneBy);
    flight.open.clear();
  };
  const parser = conversation(options, flight, (frame) => channel.post(frame), agreed.resolve);
  const channel = openChannel(options.socketPath, parser, fail);
  const leave = (reason: Error) => {
    fail(reason);
    channel.destroy();
  };
  try {
    const session = await withDeadline(options.requestTimeoutMs, "The NBD server's handshake", () => agreed.promise);
    return {
      session,
      perform: (ask) => perform(ask, flight, channel, options.requestTimeoutMs, leave),
      close: () => close(flight, channel, fail),
    };
  } catch (error) {
    leave(error as Error);
    throw error;
  }
}

/** All that the server says, from its first byte to its last. */
function* conversation(
  options: ConnectionOptions,
  flight: Flight,
  send: (frame: Buffer) => void,
  agreed: (session: Session) => void,
): Feed<never> {
  const session = yield* handshake(options.exportName, options.metaContexts, send);
  agreed(session);
  return yield* replies(session, {
    find: (handle) => flight.open.get(handle)?.pending,
    settle: (handle) => {
      const one = flight.open.get(handle);
      flight.open.delete(handle);
      one?.resolve();
    },
  });
}

async function perform(
  ask: Ask,
  flight: Flight,
  channel: Channel,
  timeoutMs: number,
  leave: (reason: Error) => void,
): Promise<Pending> {
  const pending = newPending(ask.command, ask.offset, ask.length, ask.target ?? null);
  await flight.slots.take();
  try {
    const handle = ++flight.lastHandle;
    const answer = new Promise<void>((resolve, reject) => flight.open.set(handle, { pending, resolve, reject }));
    const head = requestHeader(ask.command, ask.flags ?? 0, handle, ask.offset, ask.length);
    // Both: a server that answers before it has taken all data must not make the caller's buffer free.
    await withDeadline(timeoutMs, `The answer to an NBD ${ask.name}`, () =>
      Promise.all([answer, channel.send(ask.data ? [head, ask.data] : [head])]),
    );
  } catch (error) {
    // Late or lost: the answer may still come and must not find the buffer of a request that was given up.
    leave(error as Error);
    throw flight.goneBy ?? error;
  } finally {
    flight.slots.free();
  }
  if (pending.failure)
    throw refused(
      `${ask.name} of ${ask.length} bytes at ${ask.offset}`,
      pending.failure.errno,
      pending.failure.message,
    );
  return pending;
}

async function close(flight: Flight, channel: Channel, fail: (reason: Error) => void): Promise<void> {
  if (!flight.goneBy) {
    fail(closedByUs());
    channel.post(requestHeader(CMD_DISCONNECT, 0, 0, 0, 0));
  }
  try {
    await withDeadline(CLOSE_TIMEOUT_MS, "The NBD server's farewell", () => channel.end());
  } catch {
    channel.destroy(); // a server that does not hang up is hung up on
  }
}
