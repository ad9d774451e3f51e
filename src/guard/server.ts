import { rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { lineSplitter, parseJsonBounded, StillpointError } from "../base/index.ts";
import type { GuardLog } from "./context.ts";
import type { EventLog } from "./events.ts";
import type { GuardCore } from "./guard.ts";
import { checkParams } from "./params.ts";
import { checkSocketPath } from "./process.ts";
import type { GuardEvent } from "./protocol.ts";
import { encodeError, encodeLine, MAX_WIRE_LINE_BYTES, type WireRequest } from "./wire.ts";

const MAX_CONNECTIONS = 32;
const MAX_IN_FLIGHT = 256;
/** A service that does not read its events is let go; it will come back and ask for what it missed. */
const MAX_UNREAD_BYTES = 16 * 1024 * 1024;

export interface GuardServer {
  close(): Promise<void>;
}

export interface ServerParts {
  readonly path: string;
  readonly core: GuardCore;
  readonly events: EventLog;
  readonly log: GuardLog;
}

/** Listens on a socket of mode 0600. Throws Conflict when another guard answers there. */
export async function serveGuard(parts: ServerParts): Promise<GuardServer> {
  const path = checkSocketPath(parts.path);
  if (await answers(path))
    throw new StillpointError("Conflict", `Another guard already serves ${path}.`, {
      remedy: "One guard per dataDir.",
    });
  await rm(path, { force: true });
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    serveConnection(socket, parts);
  });
  server.maxConnections = MAX_CONNECTIONS;
  // The socket's mode comes from the umask, so that it is never open to others, not even for an instant.
  const umask = process.umask(0o177);
  try {
    await listen(server, path);
  } finally {
    process.umask(umask);
  }
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

function serveConnection(socket: Socket, { core, events, log }: ServerParts): void {
  let greeted = false;
  let inFlight = 0;
  let unsubscribe = () => {};

  const send = (line: string) => {
    if (socket.destroyed) return;
    socket.write(line);
    if (socket.writableLength > MAX_UNREAD_BYTES) socket.destroy();
  };
  const notice = (event: GuardEvent) => send(encodeLine({ event }));

  async function answer({ id, method, params }: WireRequest): Promise<void> {
    try {
      if (inFlight > MAX_IN_FLIGHT) throw new StillpointError("HypervisorUnavailable", "Too many calls at once.");
      checkParams(method, params);
      if (!greeted && method !== "hello") throw new StillpointError("BadRequest", "The first call must be hello.");
      const result = await core.calls[method](params as never);
      if (method === "hello") greeted = true;
      send(encodeLine({ id, result }));
      if (method === "hello") subscribe((params as { events?: { epoch: string; after: number } | null }).events);
    } catch (error) {
      if (!(error instanceof StillpointError)) log.error({ err: error, method }, "a call failed unexpectedly");
      send(encodeLine({ id, error: encodeError(error) }));
    }
  }

  /** Events from where the service left off; where that is not known any more, every present state once. */
  function subscribe(from: { readonly epoch: string; readonly after: number } | null | undefined): void {
    if (from === undefined) return;
    unsubscribe();
    const missed = from ? events.after(from.epoch, from.after) : null;
    unsubscribe = events.subscribe(notice);
    if (missed) for (const event of missed) notice(event);
    else void presentStates().catch((error) => log.error({ err: error }, "could not tell the present states"));
  }

  async function presentStates(): Promise<void> {
    const at = { epoch: events.epoch, number: events.last() };
    for (const state of await core.calls["vm.list"]({})) notice({ ...at, kind: "vm", vm: state.vm, state });
    for (const state of await core.calls["capture.list"]({})) notice({ ...at, kind: "capture", vm: state.vm, state });
  }

  const split = lineSplitter(MAX_WIRE_LINE_BYTES, (line) => {
    inFlight++;
    void answer(request(parseJsonBounded(line.toString("utf8")))).finally(() => inFlight--);
  });
  socket.on("data", (chunk: Buffer) => {
    try {
      split(chunk);
    } catch (error) {
      log.warn({ err: error }, "a client of the guard sent nonsense");
      socket.destroy();
    }
  });
  socket.on("error", () => socket.destroy());
  socket.on("close", () => unsubscribe());
}

function request(value: unknown): WireRequest {
  const given = value as Partial<WireRequest> | null;
  if (typeof given?.id !== "number" || typeof given.method !== "string")
    throw new StillpointError("BadRequest", "A request has an id and a method.");
  return { id: given.id, method: given.method, params: given.params };
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path });
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
}
