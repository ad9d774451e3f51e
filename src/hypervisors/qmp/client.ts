import { connect as connectSocket, type Socket } from "node:net";
import { lineSplitter, parseJsonBounded, StillpointError } from "../../base/index.ts";
import { foreignText, QmpError } from "./errors.ts";

/** An asynchronous message of QEMU. The data comes from a process that may be hostile: check before use. */
export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** The one monitor connection to a QEMU process. */
export interface QmpClient {
  /** Such as `7.2.22`, from the greeting. */
  readonly version: string;
  /**
   * Runs a command. Rejects with {@link QmpError} when QEMU refuses it, with DeadlineExceeded after `timeoutMs`
   * (the command may still happen: a monitor runs its commands one after another), with HypervisorUnavailable when
   * the connection is or gets lost.
   */
  execute(command: string, args?: Readonly<Record<string, unknown>>, timeoutMs?: number): Promise<unknown>;
  /** Resolves once, with the reason, when the connection has ended for any reason. */
  readonly closed: Promise<Error>;
  close(): void;
}

export interface QmpOptions {
  readonly path: string;
  /** Called in order, in the middle of reading: it must not throw and must not wait. Nothing is queued. */
  readonly onEvent: (event: QmpEvent) => void;
  readonly greetingMs?: number;
}

const GREETING_MS = 5_000;
const COMMAND_MS = 10_000;
/** query-named-block-nodes of 500 nodes takes about 750 KiB. */
const MAX_LINE_BYTES = 4 * 1024 * 1024;
const MAX_PENDING = 64;

/**
 * Connects to a QMP monitor and negotiates. A monitor serves one client at a time and lets a second one wait without
 * a word; so no greeting within 5 s is HypervisorUnavailable with the way to add a monitor.
 */
export async function connectQmp(options: QmpOptions): Promise<QmpClient> {
  const session = createSession(options);
  const greetingMs = options.greetingMs ?? GREETING_MS;
  const timer = setTimeout(() => session.lose(noGreeting(options.path, greetingMs)), greetingMs);
  try {
    const version = await session.greeting;
    await session.execute("qmp_capabilities", {}, greetingMs);
    return { version, execute: session.execute, closed: session.closed, close: session.close };
  } catch (error) {
    session.lose(error as Error);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

interface Pending {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

function createSession({ path, onEvent }: QmpOptions) {
  const socket: Socket = connectSocket({ path });
  const pending = new Map<number, Pending>();
  const greeting = Promise.withResolvers<string>();
  const closed = Promise.withResolvers<Error>();
  let lost: Error | null = null;
  let nextId = 1;
  greeting.promise.catch(() => {});

  function lose(reason: Error): void {
    if (lost) return;
    lost = reason;
    socket.destroy();
    greeting.reject(reason);
    for (const waiting of pending.values()) {
      clearTimeout(waiting.timer);
      waiting.reject(reason);
    }
    pending.clear();
    closed.resolve(reason);
  }

  function execute(command: string, args: Readonly<Record<string, unknown>> = {}, timeoutMs = COMMAND_MS) {
    return new Promise<unknown>((resolve, reject) => {
      if (lost) return reject(lost);
      if (pending.size >= MAX_PENDING)
        return reject(
          new StillpointError("HypervisorUnavailable", `QEMU at ${path} is behind by ${MAX_PENDING} commands.`),
        );
      const id = nextId++;
      const timer = setTimeout(() => {
        pending.delete(id);
        reject(new StillpointError("DeadlineExceeded", `QEMU did not answer '${command}' within ${timeoutMs} ms.`));
      }, timeoutMs);
      pending.set(id, { command, resolve, reject, timer });
      socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  function onMessage(line: Buffer): void {
    const message = parseJsonBounded(line.toString("utf8"));
    if (!isObject(message)) throw new StillpointError("BadRequest", "A QMP message is not an object.");
    if (isObject(message["QMP"])) greeting.resolve(versionOf(message["QMP"]));
    else if (typeof message["event"] === "string")
      onEvent({ event: message["event"], data: isObject(message["data"]) ? message["data"] : {} });
    else onAnswer(message);
  }

  function onAnswer(message: Record<string, unknown>): void {
    const waiting = typeof message["id"] === "number" ? pending.get(message["id"]) : undefined;
    // Unmatched: the late answer to a command whose deadline has passed.
    if (!waiting) return;
    pending.delete(message["id"] as number);
    clearTimeout(waiting.timer);
    if (isObject(message["error"]))
      waiting.reject(new QmpError(waiting.command, foreignText(message["error"]["desc"])));
    else waiting.resolve(message["return"]);
  }

  const gone = (why: string, cause?: unknown) =>
    lose(new StillpointError("HypervisorUnavailable", `The monitor ${path} ${why}.`, { cause }));
  const split = lineSplitter(MAX_LINE_BYTES, onMessage);
  socket.on("data", (chunk: Buffer) => {
    try {
      if (!lost) split(chunk);
    } catch (error) {
      gone(`sent what no QEMU sends (${(error as Error).message})`, error);
    }
  });
  socket.on("error", (error: NodeJS.ErrnoException) =>
    gone(`cannot be reached (${error.code ?? error.message})`, error),
  );
  socket.on("close", () => gone("closed the connection"));

  const close = () => lose(new StillpointError("HypervisorUnavailable", `The connection to ${path} was closed.`));
  return { greeting: greeting.promise, closed: closed.promise, execute, lose, close };
}

function noGreeting(path: string, greetingMs: number): StillpointError {
  return new StillpointError("HypervisorUnavailable", `The monitor ${path} did not greet within ${greetingMs} ms.`, {
    remedy:
      "A monitor serves one client, and another one seems to hold it; " +
      "start QEMU with a monitor of its own for Stillpoint: -qmp unix:PATH,server=on,wait=off",
  });
}

function versionOf(greeting: Record<string, unknown>): string {
  const version = isObject(greeting["version"]) ? greeting["version"] : {};
  const qemu = isObject(version["qemu"]) ? version["qemu"] : {};
  const parts = ["major", "minor", "micro"].map((part) => qemu[part]);
  if (!parts.every((part) => Number.isSafeInteger(part)))
    throw new StillpointError("BadRequest", "No version in the greeting.");
  return parts.join(".");
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
