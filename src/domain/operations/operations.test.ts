import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { turns } from "../../../test/faults/domainSite.ts";
import { fastClock, silentLog } from "../../../test/faults/domainWorld.ts";
import { createKeyedLock } from "./locks.ts";
import { retrying } from "./retry.ts";
import { createTasks } from "./tasks.ts";

const never = new AbortController().signal;

describe("a keyed lock", () => {
  test("lets one in per key, in order of arrival, and others beside", async () => {
    const lock = createKeyedLock();
    const seen: string[] = [];
    const work = (key: string, name: string) =>
      lock.hold(key, never, async () => {
        seen.push(`${name} in`);
        await turns(2);
        seen.push(`${name} out`);
      });
    await Promise.all([work("vm1", "a"), work("vm1", "b"), work("vm2", "c")]);
    assert.deepEqual(
      seen.filter((line) => !line.startsWith("c")),
      ["a in", "a out", "b in", "b out"],
    );
    assert.ok(seen.indexOf("c in") < seen.indexOf("a out"));
  });

  test("goes on after work that threw, and after one who gave up waiting", async () => {
    const lock = createKeyedLock();
    const inside = Promise.withResolvers<void>();
    const first = lock.hold("vm", never, () => inside.promise);
    const impatient = new AbortController();
    const second = lock.hold("vm", impatient.signal, async () => assert.fail("it had given up"));
    let entered = false;
    const third = lock.hold("vm", never, async () => {
      entered = true;
    });
    impatient.abort(new Error("too late"));
    await assert.rejects(second, /too late/);
    await turns(5);
    assert.equal(entered, false, "the third must not pass the first");
    inside.reject(new Error("broken"));
    await assert.rejects(first, /broken/);
    await third;
    assert.equal(entered, true);
  });
});

describe("tasks", () => {
  test("of one name run once at a time; closing tells each to stop and waits for it", async () => {
    const tasks = createTasks(fastClock, silentLog);
    let started = 0;
    let stopped = "";
    const work = async (signal: AbortSignal) => {
      started++;
      while (!signal.aborted) await turns(1);
      stopped = (signal.reason as Error).message;
    };
    tasks.start("one", work);
    tasks.start("one", work);
    await turns(3);
    assert.equal(started, 1);
    await tasks.close(1_000);
    assert.match(stopped, /stopping/);
    tasks.start("late", work);
    assert.throws(() => tasks.admit(), { code: "ServiceUnavailable" });
    await turns(3);
    assert.equal(started, 1);
  });

  test("beyond the bound are refused", async () => {
    const tasks = createTasks(fastClock, silentLog);
    const hold = Promise.withResolvers<void>();
    for (let n = 0; n < 255; n++) tasks.start(`task ${n}`, () => hold.promise);
    tasks.admit();
    tasks.start("the last", () => hold.promise);
    assert.throws(() => tasks.admit(), { code: "TooManyRequests" });
    hold.resolve();
    await tasks.close(1_000);
  });
});

describe("retrying", () => {
  test("tries until it works, a given number of times, or until another try is useless", async () => {
    let tries = 0;
    const works = (at: number) => async () => {
      if (++tries < at) throw new Error(`try ${tries}`);
      return tries;
    };
    assert.equal(await retrying(fastClock, never, 5, () => true, works(3)), 3);
    tries = 0;
    await assert.rejects(
      retrying(fastClock, never, 2, () => true, works(3)),
      /try 2/,
    );
    tries = 0;
    await assert.rejects(
      retrying(fastClock, never, 9, () => false, works(3)),
      /try 1/,
    );
  });
});
