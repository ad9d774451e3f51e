/** Types commands on the demonstration guest's serial line and reads what they print. */
import { createConnection, type Socket } from "node:net";
import { type Clock, StillpointError, withDeadline } from "../../base/index.ts";

export interface GuestConsole {
  /** The command's output; throws InternalError when it exits with another code than 0. */
  run(command: string, timeoutMs: number): Promise<string>;
  close(): void;
}

/** More than any command here prints; a guest that floods its console is not read to the end. */
const MAX_BUFFERED = 1024 * 1024;

/** Connects to the console socket of a VM. The guest may still be booting: the first command then waits for it. */
export async function connectConsole(path: string, clock: Clock): Promise<GuestConsole> {
  const socket = await connected(path);
  let buffer = "";
  let wake: () => void = () => {};
  socket.setEncoding("latin1");
  socket.on("data", (text: string) => {
    buffer = (buffer + text).slice(-MAX_BUFFERED);
    wake();
  });
  socket.on("error", () => {});
  let count = 0;
  return {
    run: (command, timeoutMs) =>
      withDeadline(timeoutMs, "the guest console's answer", async (signal) => {
        for (;;) {
          // a line typed before the guest listens is lost, so it is typed again under a new name
          const token = `t${process.pid}-${++count}`;
          socket.write(`\n${token} ${command}\n`);
          const answer = await answerTo(token, signal);
          if (answer) return finished(command, answer);
        }
      }),
    close: () => void socket.destroy(),
  };

  async function answerTo(token: string, signal: AbortSignal): Promise<RegExpMatchArray | null> {
    const pattern = new RegExp(`--- ${token}\\r?\\n([^]*?)=== ${token} (\\d+)`);
    const begun = `--- ${token}`;
    const patienceEndsMs = clock.monotonicMs() + 3_000;
    for (;;) {
      signal.throwIfAborted();
      const match = buffer.match(pattern);
      if (match) {
        buffer = buffer.slice((match.index ?? 0) + match[0].length);
        return match;
      }
      if (!buffer.includes(begun) && clock.monotonicMs() > patienceEndsMs) return null;
      await Promise.race([new Promise<void>((resolve) => (wake = resolve)), clock.sleep(200, signal)]);
    }
  }
}

function finished(command: string, [, output, status]: RegExpMatchArray): string {
  if (status !== "0")
    throw new StillpointError("InternalError", `In the guest, '${command}' ended with ${status}: ${output?.trim()}`);
  return output ?? "";
}

function connected(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    socket.once("connect", () => resolve(socket));
    socket.once("error", (cause) =>
      reject(new StillpointError("HypervisorUnavailable", `No guest console at ${path}.`, { cause })),
    );
  });
}
