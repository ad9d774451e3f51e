import { connect as connectSocket, type Socket } from "node:net";
import { type Clock, lineSplitter, parseJsonBounded, type Random, StillpointError } from "../../base/index.ts";
import { foreignText } from "../qmp/index.ts";

/** The QEMU guest agent inside one VM. Whatever it says comes from the guest. */
export interface GuestAgent {
  ping(timeoutMs: number): Promise<void>;
  /** Freezes every file system; resolves with how many. */
  freeze(timeoutMs: number): Promise<number>;
  /** Thaws every file system; resolves with how many were thawed by this call. */
  thaw(timeoutMs: number): Promise<number>;
  fsfreezeStatus(timeoutMs: number): Promise<"thawed" | "frozen">;
  close(): void;
}

export interface AgentOptions {
  readonly path: string;
  readonly random: Random;
  readonly clock: Clock;
  /** For connecting and the first sync. */
  readonly timeoutMs: number;
}

/** The longest honest answer here is a few dozen bytes. */
const MAX_LINE_BYTES = 64 * 1024;
const SENTINEL = 0xff;

/**
 * Connects to the host side of the agent's channel and synchronises, so that answers to commands of a former client
 * are never taken for ours. Throws VMAgentStatusCommunicationError when the agent does not answer.
 */
export async function connectAgent(options: AgentOptions): Promise<GuestAgent> {
  const channel = createChannel(options.path);
  /** False when the next line could be a stale answer. */
  let synced = false;
  let queue: Promise<unknown> = Promise.resolve();

  async function sync(timeoutMs: number): Promise<void> {
    const id = options.random.bytes(6).readUIntBE(0, 6);
    // The first byte flushes the agent's own parser, the 0xFF of its answer marks where fresh answers begin.
    channel.send(Buffer.concat([Buffer.from([SENTINEL]), encode("guest-sync-delimited", { id })]));
    await channel.receive(timeoutMs, "its sync", (line) => {
      const mark = line.lastIndexOf(SENTINEL);
      return mark !== -1 && returned(line.subarray(mark + 1), "guest-sync-delimited") === id ? true : undefined;
    });
    synced = true;
  }

  function command(name: string, timeoutMs: number): Promise<unknown> {
    const work = async () => {
      const started = options.clock.monotonicMs();
      if (!synced) await sync(timeoutMs);
      synced = false;
      channel.send(encode(name, {}));
      const value = await channel.receive(
        Math.max(1, timeoutMs - (options.clock.monotonicMs() - started)),
        `'${name}'`,
        (line) => ({
          value: returned(line, name),
        }),
      );
      synced = true;
      return value.value;
    };
    const result = queue.then(work, work);
    queue = result.catch(() => {});
    return result;
  }

  try {
    await sync(options.timeoutMs);
  } catch (error) {
    channel.close();
    throw error;
  }
  return {
    ping: async (timeoutMs) => void (await command("guest-ping", timeoutMs)),
    freeze: async (timeoutMs) => count(await command("guest-fsfreeze-freeze", timeoutMs)),
    thaw: async (timeoutMs) => count(await command("guest-fsfreeze-thaw", timeoutMs)),
    fsfreezeStatus: async (timeoutMs) =>
      (await command("guest-fsfreeze-status", timeoutMs)) === "thawed" ? "thawed" : "frozen",
    close: channel.close,
  };
}

function encode(execute: string, args: Readonly<Record<string, unknown>>): Buffer {
  return Buffer.from(`${JSON.stringify({ execute, arguments: args })}\n`);
}

/** The value of an answer; throws what the agent refused. */
function returned(line: Buffer, command: string): unknown {
  const message = parseJsonBounded(line.toString("utf8"), 16) as {
    return?: unknown;
    error?: { desc?: unknown };
  } | null;
  if (typeof message !== "object" || message === null) throw failed(`answered '${command}' with no object`);
  if (message.error) throw failed(`refused '${command}': ${foreignText(message.error.desc)}`);
  return message.return;
}

function count(value: unknown): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw failed("answered with no number of file systems");
  return value as number;
}

function failed(what: string, cause?: unknown): StillpointError {
  return new StillpointError("VMAgentStatusCommunicationError", `The guest agent ${what}.`, { cause });
}

function createChannel(path: string) {
  const socket: Socket = connectSocket({ path });
  let lost: Error | null = null;
  let take: ((line: Buffer) => void) | null = null;
  let fail: ((error: Error) => void) | null = null;

  const lose = (error: Error) => {
    lost ??= error;
    socket.destroy();
    fail?.(lost);
  };
  const split = lineSplitter(MAX_LINE_BYTES, (line) => take?.(line));
  socket.on("data", (chunk: Buffer) => {
    try {
      if (!lost) split(chunk);
    } catch (error) {
      lose(failed(`sent nonsense (${(error as Error).message})`, error));
    }
  });
  socket.on("error", (error: NodeJS.ErrnoException) => lose(failed(`cannot be reached (${error.code})`, error)));
  socket.on("close", () => lose(failed("closed its channel")));

  /** The first line for which `match` gives a value; lines nobody waits for are dropped. One waiter at a time. */
  function receive<T>(timeoutMs: number, what: string, match: (line: Buffer) => T | undefined): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const end = () => {
        clearTimeout(timer);
        take = null;
        fail = null;
      };
      const stop = (error: Error) => {
        end();
        reject(error);
      };
      const timer = setTimeout(
        () => stop(failed(`did not answer ${what} within ${Math.round(timeoutMs)} ms`)),
        timeoutMs,
      );
      if (lost) return stop(lost);
      fail = stop;
      take = (line) => {
        try {
          const value = match(line);
          if (value === undefined) return;
          end();
          resolve(value);
        } catch (error) {
          stop(error as Error);
        }
      };
    });
  }

  return {
    receive,
    send: (data: Buffer) => void (lost ? undefined : socket.write(data)),
    close: () => lose(failed("was let go")),
  };
}
