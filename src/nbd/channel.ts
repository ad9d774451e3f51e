import { createConnection, type Socket } from "node:net";
import { StillpointError } from "../base/index.ts";
import type { Feed } from "./handshake.ts";

/** A connected unix socket whose incoming bytes go straight into the buffers that a parser asks for. */
export interface Channel {
  /** Queues bytes; resolves when the kernel has them, so that the caller's buffer is free again. */
  send(frames: readonly Uint8Array[]): Promise<void>;
  /** Queues bytes whose fate shows in the answer. */
  post(frame: Uint8Array): void;
  /** Closes after what is queued; resolves when the socket is gone. */
  end(): Promise<void>;
  destroy(): void;
}

/** One buffer for all incoming data: with 'data' events instead, throughput was 350-690 MB/s; so 1.8-2.5 GB/s. */
const RECEIVE_BYTES = 1024 * 1024;

/**
 * Connects and feeds `parser`. `onGone` is called once, with the reason, when the connection is of no use any more: the
 * parser threw, the socket failed or the server closed it.
 */
export function openChannel(socketPath: string, parser: Feed<never>, onGone: (reason: Error) => void): Channel {
  const feed = feeder(parser);
  let gone = false;
  const leave = (reason: Error) => {
    if (gone) return;
    gone = true;
    onGone(reason);
    socket.destroy();
  };
  const socket: Socket = createConnection({
    path: socketPath,
    onread: {
      buffer: Buffer.allocUnsafeSlow(RECEIVE_BYTES),
      callback: (length, buffer) => {
        if (gone) return false;
        try {
          feed(buffer as Buffer, length);
        } catch (error) {
          leave(error as Error);
        }
        return !gone;
      },
    },
  });
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  socket.on("error", (error) => leave(lost(socketPath, error)));
  socket.on("end", () => leave(lost(socketPath, null)));
  socket.on("close", () => leave(lost(socketPath, null)));
  return {
    send: (frames) => writeAll(socket, frames, () => lost(socketPath, null)),
    post: (frame) => void socket.write(frame),
    end: async () => {
      socket.end();
      await closed;
    },
    destroy: () => void socket.destroy(),
  };
}

function writeAll(socket: Socket, frames: readonly Uint8Array[], gone: () => Error): Promise<void> {
  return new Promise((resolve, reject) => {
    if (socket.destroyed) return reject(gone());
    const last = frames.length - 1;
    socket.cork();
    frames.forEach((frame, at) => {
      if (at < last) socket.write(frame);
      else socket.write(frame, (error) => (error ? reject(error) : resolve()));
    });
    socket.uncork();
  });
}

/** Copies incoming bytes to where the parser wants them; the parser runs on each time a buffer is full. */
function feeder(parser: Feed<never>): (data: Buffer, length: number) => void {
  let target: Buffer = Buffer.alloc(0);
  let filled = 0;
  const advance = () => {
    while (filled === target.length) {
      target = parser.next().value;
      filled = 0;
    }
  };
  advance();
  return (data, length) => {
    for (let at = 0; at < length; ) {
      const copied = data.copy(target, filled, at, Math.min(length, at + target.length - filled));
      at += copied;
      filled += copied;
      advance();
    }
  };
}

function lost(socketPath: string, cause: Error | null): StillpointError {
  const words = cause ? `: ${cause.message}` : "";
  return new StillpointError("HypervisorUnavailable", `The NBD connection to ${socketPath} is gone${words}.`, {
    cause,
  });
}
