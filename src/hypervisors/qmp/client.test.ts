import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { connectQmp, type QmpEvent } from "./client.ts";

const GREETING = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}\n';

describe("a QMP monitor", () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "sp-qmp-"));
  });
  after(() => rm(dir, { recursive: true }));

  let number = 0;
  /** A monitor that greets, agrees to everything, and hands other requests to `answer`. */
  async function monitor(
    answer: (request: { id: number; execute: string }, socket: Socket) => void,
    greeting = GREETING,
  ): Promise<{ path: string; server: Server }> {
    const path = join(dir, `${++number}.sock`);
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.write(greeting);
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk;
        for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n")) {
          const request = JSON.parse(text.slice(0, end));
          text = text.slice(end + 1);
          if (request.execute === "qmp_capabilities") socket.write(`{"return": {}, "id": ${request.id}}\n`);
          else answer(request, socket);
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return { path, server };
  }

  test("answers are matched by id, in whatever order they come, with events in between", async () => {
    const waiting: number[] = [];
    const { path, server } = await monitor((request, socket) => {
      waiting.push(request.id);
      if (waiting.length < 3) return;
      socket.write('{"event": "STOP", "data": {"x": 1}, "timestamp": {}}\n');
      for (const id of waiting.reverse()) socket.write(`{"id": ${id}, "return": {"was": ${id}}}\n`);
    });
    const events: QmpEvent[] = [];
    const qmp = await connectQmp({ path, onEvent: (event) => events.push(event) });
    const answers = await Promise.all(["a", "b", "c"].map((command) => qmp.execute(command)));
    assert.deepEqual(answers, [{ was: 2 }, { was: 3 }, { was: 4 }]);
    assert.deepEqual(events, [{ event: "STOP", data: { x: 1 } }]);
    assert.equal(qmp.version, "7.2.22");
    qmp.close();
    await qmp.closed;
    server.close();
  });

  test("a refusal carries QEMU's words without control characters", async () => {
    const { path, server } = await monitor((request, socket) =>
      socket.write(
        `{"id": ${request.id}, "error": {"class": "GenericError", "desc": "no\\u001b[2Jway${"x".repeat(9000)}"}}\n`,
      ),
    );
    const qmp = await connectQmp({ path, onEvent: () => {} });
    await assert.rejects(qmp.execute("blockdev-del"), (error: Error & { description: string }) => {
      assert.match(error.description, /^no \[2Jwayx+$/);
      assert.equal(error.description.length, 500);
      return true;
    });
    qmp.close();
    server.close();
  });

  test("a command has a deadline, and its late answer disturbs nobody", async () => {
    const { path, server } = await monitor((request, socket) => {
      if (request.execute === "fast")
        socket.write(`{"id": ${request.id - 1}, "return": "late"}\n{"id": ${request.id}, "return": "fast"}\n`);
    });
    const qmp = await connectQmp({ path, onEvent: () => {} });
    await assert.rejects(qmp.execute("slow", {}, 50), { code: "DeadlineExceeded" });
    assert.equal(await qmp.execute("fast"), "fast");
    qmp.close();
    server.close();
  });

  test("a monitor that another client holds says nothing: the error tells how to add one", async () => {
    const { path, server } = await monitor(() => {}, "");
    await assert.rejects(
      connectQmp({ path, onEvent: () => {}, greetingMs: 100 }),
      (error: Error & { code: string }) => {
        assert.equal(error.code, "HypervisorUnavailable");
        assert.match(error.message, /-qmp unix:PATH,server=on,wait=off/);
        return true;
      },
    );
    server.close();
  });

  test("what waits is rejected when the monitor goes away", async () => {
    const { path, server } = await monitor((_, socket) => void socket.destroy());
    const qmp = await connectQmp({ path, onEvent: () => {} });
    await assert.rejects(qmp.execute("quit"), { code: "HypervisorUnavailable" });
    await assert.rejects(qmp.execute("query-status"), { code: "HypervisorUnavailable" });
    assert.match((await qmp.closed).message, /closed the connection/);
    server.close();
  });

  test("nobody listens", async () => {
    await assert.rejects(connectQmp({ path: join(dir, "none"), onEvent: () => {} }), { code: "HypervisorUnavailable" });
  });

  for (const [what, bytes] of [
    ["no JSON", "hello\n"],
    ["no object", "[1]\n"],
    ["too deep", `${'{"return":'.repeat(100)}1${"}".repeat(100)}\n`],
    ["a line without end", "x".repeat(5 * 1024 * 1024)],
    ["a greeting without a version", '{"QMP": {}}\n'],
    [
      "a greeting whose version is a text",
      '{"QMP": {"version": {"qemu": {"major": "7; rm", "minor": 1, "micro": 2}}}}\n',
    ],
  ] as const)
    test(`a hostile monitor (${what}) loses the connection and nothing else`, async () => {
      const { path, server } = await monitor(() => {}, bytes);
      await assert.rejects(connectQmp({ path, onEvent: () => {}, greetingMs: 5_000 }), {
        code: "HypervisorUnavailable",
      });
      server.close();
    });
});
