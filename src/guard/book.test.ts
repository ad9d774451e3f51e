import assert from "node:assert/strict";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { systemClock, systemRandom, type VmUid } from "../base/index.ts";
import { openBook } from "./book.ts";
import type { GuardOptions } from "./context.ts";

const vm = "11111111-1111-4111-8111-111111111111" as VmUid;

describe("the guard's book", () => {
  let dir: string;
  const log = { info() {}, warn() {}, error() {} };
  const options = (): GuardOptions => ({
    ...{ dataDir: dir, captureDir: dir, socketDirs: [], accelerator: "tcg" },
    ...{ qemu: { system: [], firmwareCode: "" }, spaceRule: { minFreeBytes: 0, minFreeRatio: 0 } },
    ...{ clock: systemClock, random: systemRandom, log, probe: () => {} },
  });
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "sp-book-"));
  });
  after(() => rm(dir, { recursive: true }));

  test("what was noted is there for the next guard", async () => {
    const book = await openBook(options());
    await book.note({ t: "quitting", vm, quitting: true });
    await book.close();
    const next = await openBook(options());
    assert.deepEqual([...next.ledger().quitting], [vm]);
    await next.note({ t: "quitting", vm, quitting: false });
    await next.close();
  });

  test("a journal that cannot be written stops new things, but no undoing and no thaw", async () => {
    const book = await openBook(options());
    await book.close();
    await assert.rejects(book.note({ t: "freeze-begun", vm }), { code: "InternalError" });
    assert.equal(book.ledger().frozen.has(vm), false, "what is not durable does not count");
    await book.noteAnyway({ t: "freeze-begun", vm });
    assert.equal(book.ledger().frozen.has(vm), true);
    await book.noteAnyway({ t: "thawed", vm });
    assert.equal(book.ledger().frozen.has(vm), false);
  });

  test("thousands of records stay a small file", async () => {
    const book = await openBook(options());
    const reason = "x".repeat(20_000);
    const open = { capture: "c", vm, incarnation: "i", giveUp: { before: [], after: [] }, jobs: [], silenceMs: 1 };
    await book.note({ t: "open", open: open as never });
    for (let n = 0; n < 400; n++)
      await book.note({ t: "ending", capture: "c" as never, phase: "given-up", reason: `${n} ${reason}` });
    await book.close();
    const { size } = await stat(join(dir, "guard/journal"));
    assert.ok(size < 5 * 1024 * 1024, `${size} bytes`);
    const next = await openBook(options());
    assert.equal(next.ledger().captures.get("c" as never)?.reason, `399 ${reason}`);
    await next.close();
  });
});
