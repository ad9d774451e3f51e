import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { systemClock, systemRandom } from "../../base/index.ts";
import { connectAgent } from "./client.ts";

interface Request {
  readonly execute: string;
  readonly arguments: { readonly id?: number };
}

describe("the guest agent", () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "sp-qga-"));
  });
  after(() => rm(dir, { recursive: true }));

  let number = 0;
  async function agent(answer: (request: Request, socket: Socket) => void): Promise<{ path: string; server: Server }> {
    const path = join(dir, `${++number}.sock`);
    const server = createServer((socket) => {
      socket.on("error", () => {});
      let held = Buffer.alloc(0);
      socket.on("data", (chunk) => {
        held = Buffer.concat([held, chunk]);
        for (let end = held.indexOf(10); end !== -1; end = held.indexOf(10)) {
          const line = held.subarray(0, end);
          held = held.subarray(end + 1);
          answer(JSON.parse(line.subarray(line[0] === 0xff ? 1 : 0).toString()), socket);
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return { path, server };
  }

  const sync = (request: Request, socket: Socket) =>
    socket.write(Buffer.concat([Buffer.from([0xff]), Buffer.from(`{"return": ${request.arguments.id}}\n`)]));
  const connect = (path: string, timeoutMs = 2_000) =>
    connectAgent({ path, random: systemRandom, clock: systemClock, timeoutMs });

  test("answers to a former client's commands are never taken for ours", async () => {
    const { path, server } = await agent((request, socket) => {
      if (request.execute === "guest-sync-delimited") {
        socket.write(
          '{"return": 99}\n{"error": {"class": "GenericError", "desc": "Invalid JSON syntax"}}\n{"return": 1234}\n',
        );
        socket.write(Buffer.concat([Buffer.from([0xff]), Buffer.from('{"return": 4711}\n')]));
        sync(request, socket);
      } else if (request.execute === "guest-fsfreeze-freeze") socket.write('{"return": 3}\n');
      else if (request.execute === "guest-fsfreeze-status") socket.write('{"return": "frozen"}\n');
    });
    const guest = await connect(path);
    assert.equal(await guest.freeze(1_000), 3);
    assert.equal(await guest.fsfreezeStatus(1_000), "frozen");
    guest.close();
    server.close();
  });

  test("after a missed deadline the next command synchronises first, so the late answer is not its own", async () => {
    let frozen: Socket | null = null;
    let syncs = 0;
    const { path, server } = await agent((request, socket) => {
      if (request.execute === "guest-fsfreeze-freeze") frozen = socket;
      if (request.execute === "guest-sync-delimited") {
        syncs++;
        // the freeze, at last
        if (frozen) socket.write('{"return": 7}\n');
        sync(request, socket);
      }
      if (request.execute === "guest-fsfreeze-thaw") socket.write('{"return": 2}\n');
    });
    const guest = await connect(path);
    await assert.rejects(guest.freeze(50), { code: "VMAgentStatusCommunicationError" });
    assert.equal(await guest.thaw(1_000), 2);
    assert.equal(syncs, 2);
    guest.close();
    server.close();
  });

  test("a silent agent is given up at the deadline", async () => {
    const { path, server } = await agent(() => {});
    await assert.rejects(connect(path, 80), { code: "VMAgentStatusCommunicationError" });
    server.close();
  });

  test("a refusal carries the agent's words", async () => {
    const { path, server } = await agent((request, socket) => {
      if (request.execute === "guest-sync-delimited") sync(request, socket);
      else socket.write('{"error": {"class": "GenericError", "desc": "fsfreeze hook has failed"}}\n');
    });
    const guest = await connect(path);
    await assert.rejects(guest.freeze(1_000), /refused 'guest-fsfreeze-freeze': fsfreeze hook has failed/);
    guest.close();
    server.close();
  });

  for (const [what, answer] of [
    ["a negative count", '{"return": -1}\n'],
    ["a text for a count", '{"return": "3"}\n'],
    ["no JSON", "\u0000\u0001\n"],
    ["an endless line", "x".repeat(100_000)],
  ] as const)
    test(`a hostile agent (${what}) is an error, not a number`, async () => {
      const { path, server } = await agent((request, socket) => {
        if (request.execute === "guest-sync-delimited") sync(request, socket);
        else socket.write(answer);
      });
      const guest = await connect(path);
      await assert.rejects(guest.freeze(1_000));
      guest.close();
      server.close();
    });
});
