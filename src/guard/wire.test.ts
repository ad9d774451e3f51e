import assert from "node:assert/strict";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { StillpointError, type VmUid } from "../base/index.ts";
import { connectGuard } from "./client.ts";
import { createEventLog } from "./events.ts";
import type { GuardCore } from "./guard.ts";
import type { GuardEvent, VmState } from "./protocol.ts";
import { type GuardServer, serveGuard } from "./server.ts";

const vm = "11111111-1111-4111-8111-111111111111" as VmUid;
const state = { vm, kind: "own", process: "down" } as VmState;
const quiet = { info() {}, warn() {}, error() {} };

/** A guard whose calls do nothing but what the wire needs. */
function fakeCore(version = 1): GuardCore {
  const calls = {
    hello: async (params: { version: number }) => {
      if (Math.abs(params.version - version) > 1) throw new StillpointError("OperationNotAllowed", "versions");
      return { version, guardPid: 1, startedAt: "" };
    },
    "vm.list": async () => [state],
    "capture.list": async () => [],
    "vm.inspect": async () => {
      throw new StillpointError("ResourceNotFound", "There is no such VM.", { target: "vm", remedy: "Start it." });
    },
    "vm.forget": () => new Promise(() => {}),
    "capture.check": async () => {
      throw new TypeError("x is not a function");
    },
  };
  return { calls: calls as unknown as GuardCore["calls"], close: async () => {} };
}

describe("the wire between service and guard", () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "sp-wire-"));
  });
  after(() => rm(dir, { recursive: true }));

  let number = 0;
  const newPath = () => join(dir, `${++number}.sock`);
  async function serve(path: string, events = createEventLog("e1"), version = 1): Promise<GuardServer> {
    return serveGuard({ path, core: fakeCore(version), events, log: quiet });
  }

  test("the socket is open to its owner only", async () => {
    const path = newPath();
    const server = await serve(path);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    await server.close();
  });

  test("a second guard at the same socket is refused", async () => {
    const path = newPath();
    const server = await serve(path);
    await assert.rejects(serve(path), { code: "Conflict" });
    await server.close();
  });

  test("errors keep code, target and remedy; the unexpected is an InternalError", async () => {
    const path = newPath();
    const server = await serve(path);
    const guard = await connectGuard(path);
    await assert.rejects(guard.call("vm.inspect", { vm }), (error: StillpointError) => {
      assert.equal(error.code, "ResourceNotFound");
      assert.equal(error.message, "There is no such VM. Start it.");
      assert.equal(error.remedy, "Start it.");
      assert.equal(error.target, "vm");
      return true;
    });
    await assert.rejects(guard.call("capture.check", { capture: "c" as never }), { code: "InternalError" });
    await guard.close();
    await server.close();
  });

  test("a guard that is away is an error of each call, and it is found again", async () => {
    const path = newPath();
    const guard = await connectGuard(path);
    await assert.rejects(guard.call("vm.list", {}), { code: "HypervisorUnavailable" });
    const server = await serve(path);
    assert.deepEqual(await guard.call("vm.list", {}), [state]);
    const pending = guard.call("vm.forget", { vm });
    await server.close();
    await assert.rejects(pending, { code: "HypervisorUnavailable" });
    const second = await serve(path);
    assert.deepEqual(await guard.call("vm.list", {}), [state]);
    await assert.rejects(guard.call("vm.forget", { vm }, 50), { code: "DeadlineExceeded" });
    await guard.close();
    await assert.rejects(guard.call("vm.list", {}), { code: "HypervisorUnavailable" });
    await second.close();
  });

  test("versions may differ by one, either way", async () => {
    for (const [service, guards, fits] of [
      [1, 2, true],
      [2, 1, true],
      [3, 1, false],
      [1, 3, false],
    ] as const) {
      const path = newPath();
      const server = await serve(path, createEventLog("e"), guards);
      const connecting = connectGuard(path, { version: service });
      if (fits) await (await connecting).close();
      else await assert.rejects(connecting, { code: "OperationNotAllowed" }, `service ${service}, guard ${guards}`);
      await server.close();
    }
  });

  for (const [what, method, params] of [
    ["an unknown call", "vm.destroy", {}],
    ["a call of Object's own", "constructor", {}],
    ["no parameters", "vm.inspect", undefined],
    ["an id that climbs", "capture.check", { capture: "../../etc" }],
    ["an id in capitals", "vm.inspect", { vm: vm.toUpperCase().replace("1", "A") }],
    [
      "a scratch file that climbs",
      "capture.scratch",
      { capture: "c", scratch: { name: "../x", kind: "fleece", virtualSizeBytes: 1, reserveBytes: 1 } },
    ],
    [
      "half a byte",
      "capture.scratch",
      { capture: "c", scratch: { name: "x", kind: "fleece", virtualSizeBytes: 0.5, reserveBytes: 1 } },
    ],
    ["a step without arguments", "capture.step", { capture: "c", step: { name: "x", execute: "quit" } }],
  ] as const)
    test(`${what} is a BadRequest`, async () => {
      const path = newPath();
      const server = await serve(path);
      const guard = await connectGuard(path);
      await assert.rejects(guard.call(method as never, params as never), { code: "BadRequest" });
      await guard.close();
      await server.close();
    });

  test("nothing is answered before hello, and nonsense closes the connection", async () => {
    const path = newPath();
    const server = await serve(path);
    const socket = connect({ path });
    const answers: string[] = [];
    socket.on("data", (chunk) => answers.push(chunk.toString()));
    socket.write('{"id":1,"method":"vm.list","params":{}}\n');
    await new Promise((resolve) => socket.once("data", resolve));
    assert.match(answers.join(""), /"BadRequest".*hello/);
    socket.write("nonsense\n");
    await new Promise((resolve) => socket.once("close", resolve));
    await server.close();
  });

  test("events come from where the service left off, or every present state once", async () => {
    const path = newPath();
    const events = createEventLog("e1");
    let server = await serve(path, events);
    const seen: GuardEvent[] = [];
    const until = async (count: number) => {
      while (seen.length < count) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    const guard = await connectGuard(path, { onEvent: (event) => seen.push(event) });
    await until(1);
    assert.deepEqual(seen, [{ epoch: "e1", number: 0, kind: "vm", vm, state }]);
    events.add({ kind: "vm", vm, state });
    await until(2);
    await server.close();
    events.add({ kind: "vm", vm, state });
    events.add({ kind: "vm", vm, state });
    server = await serve(path, events);
    await until(4);
    assert.deepEqual(
      seen.map((event) => event.number),
      [0, 1, 2, 3],
    );
    await server.close();
    server = await serve(path, createEventLog("e2"));
    await until(5);
    assert.deepEqual(seen.at(-1), { epoch: "e2", number: 0, kind: "vm", vm, state });
    await guard.close();
    await server.close();
  });

  test("only so many events are kept", () => {
    const events = createEventLog("e");
    for (let n = 0; n < 3000; n++) events.add({ kind: "vm", vm, state });
    assert.equal(events.after("e", 1000), null);
    assert.equal(events.after("e", 2990)?.length, 10);
    assert.equal(events.after("other", 2990), null);
    assert.equal(events.after("e", 3001), null);
  });
});
