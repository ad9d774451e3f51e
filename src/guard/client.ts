import { connect, type Socket } from "node:net";
import { join } from "node:path";
import {
  type Clock,
  lineSplitter,
  parseJsonBounded,
  StillpointError,
  systemClock,
  withDeadline,
} from "../base/index.ts";
import type { Guard, GuardCalls, GuardEvent, GuardMethod } from "./protocol.ts";
import { decodeError, encodeLine, GUARD_PROTOCOL_VERSION, MAX_WIRE_LINE_BYTES, type WireError } from "./wire.ts";

/** Where the guard of a data folder listens. */
export function guardSocketPath(dataDir: string): string {
  return join(dataDir, "guard.sock");
}

export interface ConnectGuardOptions {
  readonly clock?: Clock;
  /**
   * Called with each event, in order; after a gap (a restart of the guard) first with every present state. Present
   * means: the connection is then also mended in the background instead of at the next call.
   */
  readonly onEvent?: (event: GuardEvent) => void;
  /** The version this side speaks; tests play an older or newer service. */
  readonly version?: number;
}

const CALL_MS = 30_000;
const HELLO_MS = 5_000;
const MEND_MS = 1_000;

/**
 * The service's end of the wire. A guard that is away is no error here: each call connects when it must, and rejects
 * with HypervisorUnavailable while that fails. Rejects with OperationNotAllowed when the versions are too far apart.
 */
export async function connectGuard(socketPath: string, options: ConnectGuardOptions = {}): Promise<Guard> {
  const clock = options.clock ?? systemClock;
  const closed = new AbortController();
  let session: Promise<Session> | null = null;
  let seen: { epoch: string; after: number } | null = null;

  const onEvent = (event: GuardEvent) => {
    seen = { epoch: event.epoch, after: event.number };
    options.onEvent?.(event);
  };

  function ensure(): Promise<Session> {
    if (closed.signal.aborted) return Promise.reject(letGo());
    if (session) return session;
    const version = options.version ?? GUARD_PROTOCOL_VERSION;
    const opening = openSession(socketPath, { version, ...(options.onEvent ? { events: seen } : {}) }, onEvent);
    session = opening;
    const drop = () => {
      if (session === opening) session = null;
    };
    opening.then((opened) => opened.ended.then(drop), drop);
    return opening;
  }

  async function mend(): Promise<void> {
    while (!closed.signal.aborted) {
      await ensure().then(
        (opened) => Promise.race([opened.ended, aborted(closed.signal)]),
        () => {},
      );
      await clock.sleep(MEND_MS, closed.signal).catch(() => {});
    }
  }

  await ensure().catch((error: unknown) => {
    if (!(error instanceof StillpointError) || error.code !== "HypervisorUnavailable") throw error;
  });
  if (options.onEvent) void mend();

  return {
    call: (method, params, timeoutMs = CALL_MS) =>
      withDeadline(timeoutMs, `The guard's answer to '${method}'`, async () => (await ensure()).call(method, params)),
    close: async () => {
      closed.abort();
      await session?.then(
        (opened) => opened.end(),
        () => {},
      );
    },
  };
}

interface Session {
  call<M extends GuardMethod>(method: M, params: GuardCalls[M]["params"]): Promise<GuardCalls[M]["result"]>;
  readonly ended: Promise<void>;
  end(): void;
}

async function openSession(
  path: string,
  hello: GuardCalls["hello"]["params"],
  onEvent: (event: GuardEvent) => void,
): Promise<Session> {
  const session = createSession(connect({ path }), onEvent);
  try {
    const { version } = await withDeadline(HELLO_MS, "The guard's greeting", () => session.call("hello", hello));
    if (Math.abs(version - hello.version) > 1)
      throw new StillpointError("OperationNotAllowed", `The guard speaks version ${version} of its protocol.`, {
        remedy: "Upgrade one step at a time: guard and service may differ by one.",
      });
    return session;
  } catch (error) {
    session.end();
    if (error instanceof StillpointError && error.code === "DeadlineExceeded") throw away("does not greet");
    throw error;
  }
}

function createSession(socket: Socket, onEvent: (event: GuardEvent) => void): Session {
  const pending = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  const ended = Promise.withResolvers<void>();
  let lost: Error | null = null;
  let nextId = 1;

  function lose(reason: Error): void {
    if (lost) return;
    lost = reason;
    socket.destroy();
    for (const waiting of pending.values()) waiting.reject(reason);
    pending.clear();
    ended.resolve();
  }

  const split = lineSplitter(MAX_WIRE_LINE_BYTES, (line) => {
    const message = parseJsonBounded(line.toString("utf8")) as {
      readonly id?: number;
      readonly result?: unknown;
      readonly error?: WireError;
      readonly event?: GuardEvent;
    };
    if (message.event) return onEvent(message.event);
    const waiting = pending.get(message.id ?? -1);
    if (!waiting) return;
    pending.delete(message.id ?? -1);
    if (message.error) waiting.reject(decodeError(message.error));
    else waiting.resolve(message.result as never);
  });
  socket.on("data", (chunk: Buffer) => {
    try {
      split(chunk);
    } catch (cause) {
      lose(away("sent what no guard sends", cause));
    }
  });
  socket.on("error", (cause: NodeJS.ErrnoException) => lose(away(`cannot be reached (${cause.code})`, cause)));
  socket.on("close", () => lose(away("closed the connection")));

  return {
    call: (method, params) =>
      new Promise((resolve, reject) => {
        if (lost) return reject(lost);
        const id = nextId++;
        pending.set(id, { resolve, reject });
        socket.write(encodeLine({ id, method, params }));
      }),
    ended: ended.promise,
    end: () => lose(letGo()),
  };
}

function letGo(): StillpointError {
  return new StillpointError("HypervisorUnavailable", "The guard was let go.");
}

/** The target tells it from a QEMU that is away. */
function away(what: string, cause?: unknown): StillpointError {
  return new StillpointError("HypervisorUnavailable", `The guard ${what}.`, {
    cause,
    target: "guard",
    remedy: "Look at stillpoint-guard; guests are not affected.",
  });
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
