/** An NBD server for tests that keeps the client's protocol and breaks its own as it is told. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { connectNbd, type NbdClient } from "../index.ts";

const dir = mkdtempSync(join(tmpdir(), "sp-nbdh-"));
after(() => rmSync(dir, { recursive: true, force: true }));

export const SIZE = 1024 * 1024;
export const [u16, u32, u64] = [2, 4, 8].map((width) => (value: number | bigint) => {
  const out = Buffer.alloc(width);
  if (width === 2) out.writeUInt16BE(Number(value));
  else if (width === 4) out.writeUInt32BE(Number(value));
  else out.writeBigUInt64BE(BigInt(value));
  return out;
}) as [(v: number) => Buffer, (v: number) => Buffer, (v: number | bigint) => Buffer];
export const cat = (...parts: readonly Buffer[]) => Buffer.concat(parts);

export const GREETING = cat(u64(0x4e42444d41474943n), u64(0x49484156454f5054n), u16(3));
export const optionReply = (option: number, type: number, data: Buffer = Buffer.alloc(0)) =>
  cat(u64(0x0003e889045565a9n), u32(option), u32(type), u32(data.length), data);
export const info = (size: number | bigint, flags: number) => optionReply(7, 3, cat(u16(0), u64(size), u16(flags)));
export const context = (id: number, name: string) => optionReply(10, 4, cat(u32(id), Buffer.from(name)));
const STRUCTURED = optionReply(8, 1);
const CONTEXT = cat(context(5, "base:allocation"), optionReply(10, 1));
const GO = cat(info(SIZE, 0xffff & ~2), optionReply(7, 1));

export interface Script {
  /** What it says in place of the whole handshake's answers. */
  readonly greeting?: Buffer;
  readonly structured?: Buffer;
  readonly contexts?: Buffer;
  readonly go?: Buffer;
  /** What it sends for a request: the frame and the handle are given. */
  readonly answer?: (
    handle: Buffer,
    request: { readonly type: number; readonly offset: number; readonly length: number },
  ) => Buffer | null;
}

/** An NBD server that keeps the client's protocol and breaks its own as the script says. */
function serve(socket: Socket, script: Script): void {
  let held = Buffer.alloc(0);
  let phase: "flags" | "options" | "requests" = "flags";
  socket.on("error", () => {});
  socket.write(script.greeting ?? GREETING);
  const take = (n: number) => {
    const out = held.subarray(0, n);
    held = held.subarray(n);
    return out;
  };
  const step = (): boolean => {
    if (phase === "flags") {
      if (held.length < 4) return false;
      take(4);
      phase = "options";
    } else if (phase === "options") {
      if (held.length < 16 || held.length < 16 + held.readUInt32BE(12)) return false;
      const option = held.readUInt32BE(8);
      take(16 + held.readUInt32BE(12));
      if (option === 8) socket.write(script.structured ?? STRUCTURED);
      if (option === 10) socket.write(script.contexts ?? CONTEXT);
      if (option === 7) {
        socket.write(script.go ?? GO);
        phase = "requests";
      }
    } else {
      if (held.length < 28) return false;
      const [type, handle] = [held.readUInt16BE(6), Buffer.from(held.subarray(8, 16))];
      const request = { type, offset: Number(held.readBigUInt64BE(16)), length: held.readUInt32BE(24) };
      if (type === 1 && held.length < 28 + request.length) return false;
      take(28 + (type === 1 ? request.length : 0));
      if (type === 2) socket.end();
      else {
        const answer = script.answer?.(handle, request);
        if (answer) socket.write(answer);
      }
    }
    return true;
  };
  socket.on("data", (data) => {
    held = cat(held, data);
    while (step());
  });
}

let count = 0;
export async function against(
  script: Script,
  work: (connect: (more?: object) => Promise<NbdClient>) => Promise<void>,
): Promise<void> {
  const socketPath = join(dir, `h${++count}`);
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    serve(socket, script);
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  const clients: NbdClient[] = [];
  try {
    await work(async (more = {}) => {
      const options = { socketPath, exportName: "x", metaContexts: ["base:allocation"], ...more };
      const client = await connectNbd(options);
      clients.push(client);
      return client;
    });
  } finally {
    for (const client of clients) await client.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}
