import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock } from "../../base/index.ts";
import { connectConsole, type GuestConsole } from "./console.ts";

/** A serial line whose other end is `guest`: it gets each line that was typed. */
async function line(t: TestContext, guest: (typed: string, socket: Socket) => void): Promise<GuestConsole> {
  const folder = await mkdtemp(join(tmpdir(), "stillpoint-console-"));
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    let rest = "";
    socket.setEncoding("latin1").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const typed of lines) if (typed !== "") guest(typed, socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(join(folder, "s"), resolve));
  const console = await connectConsole(join(folder, "s"), systemClock);
  t.after(async () => {
    console.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    await rm(folder, { recursive: true });
  });
  return console;
}

const tokenOf = (typed: string) => typed.split(" ")[0];

test("a command's output is what stands between its marks, whatever the kernel prints around it", async (t) => {
  const guest = await line(t, (typed, socket) => {
    const token = tokenOf(typed);
    socket.write(`[ 1.0] kernel noise\r\n--- ${token}\r\nfirst\nsec`);
    setImmediate(() => socket.write(`ond\n=== ${token} 0\r\n[ 2.0] more noise\n`));
  });
  assert.equal(await guest.run("cat both", 10_000), "first\nsecond\n");
  assert.equal(await guest.run("cat again", 10_000), "first\nsecond\n");
});

test("a command that was typed before the guest listened is typed again", async (t) => {
  const seen: string[] = [];
  const guest = await line(t, (typed, socket) => {
    seen.push(typed);
    if (seen.length > 1) socket.write(`--- ${tokenOf(typed)}\nhere\n=== ${tokenOf(typed)} 0\n`);
  });
  assert.equal(await guest.run("whoami", 30_000), "here\n");
  assert.equal(seen.length, 2);
  assert.notEqual(tokenOf(seen[0] ?? ""), tokenOf(seen[1] ?? ""), "the two answers could not be told apart");
});

test("a command that fails in the guest is an error with its output", async (t) => {
  const guest = await line(t, (typed, socket) => {
    socket.write(`--- ${tokenOf(typed)}\nno such file\n=== ${tokenOf(typed)} 2\n`);
  });
  await assert.rejects(guest.run("cat nothing", 10_000), /'cat nothing' ended with 2: no such file/);
});

test("a guest that never answers is an error at the deadline, and no console is one at once", async (t) => {
  const guest = await line(t, () => {});
  await assert.rejects(guest.run("true", 100), /did not come within 100 ms/);
  await assert.rejects(connectConsole("/nowhere/console.sock", systemClock), /No guest console/);
});
