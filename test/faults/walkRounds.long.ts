/**
 * kill -9 at random instants: of the service, of the guard, or of both, twenty rounds by default.
 * `ROUNDS=n SEED=s npm run test:long test/faults/walkRounds.long.ts`, or this file run by node with --rounds and --seed.
 */
import assert from "node:assert/strict";
import { after, before, describe, type TestContext, test } from "node:test";
import { parseArgs } from "node:util";
import { systemClock } from "../../src/base/index.ts";
import { seededNumbers } from "./lib/seeded.ts";
import { openWalk, type Walk } from "./lib/walk.ts";

const { values } = parseArgs({ options: { rounds: { type: "string" }, seed: { type: "string" } }, strict: false });
const ROUNDS = Number(values.rounds ?? process.env["ROUNDS"] ?? 20);
const SEED = Number(values.seed ?? process.env["SEED"] ?? systemClock.now().getTime() % 1_000_000);

const VICTIMS = [["service"], ["guard"], ["service", "guard"]] as const;
const SETTLE_EVERY = 8;

describe(`${ROUNDS} random kills (SEED=${SEED})`, () => {
  const random = seededNumbers(SEED);
  let walk: Walk;
  /** How long a capture takes here: a death comes at any time of it. */
  let usualMs = 0;

  before(async () => {
    walk = await openWalk();
    const { fault, judge } = walk;
    await judge.expect("usual");
    const startMs = systemClock.monotonicMs();
    assert.equal(await fault.ask("usual"), null);
    usualMs = systemClock.monotonicMs() - startMs;
    await walk.ended("usual");
  });
  after(() => walk?.stop());

  test("each leaves whole points and nothing else", async (t: TestContext) => {
    for (let round = 0; round < ROUNDS; round++) {
      const victims = VICTIMS[Math.floor(random() * VICTIMS.length)] ?? VICTIMS[0];
      const frozen = random() < 0.3;
      const afterMs = Math.floor(random() * 1.1 * usualMs);
      await t.test(`${victims.join(" and ")} after ${afterMs} ms${frozen ? ", with freeze" : ""}`, async () => {
        const { fault, judge } = walk;
        const name = `round-${round}`;
        await judge.expect(name);
        const asked = fault.ask(name, frozen ? null : "CrashConsistent");
        await systemClock.sleep(afterMs);
        for (const victim of victims) await fault.site.kill(victim);
        if (victims[0] === "service") await asked;
        await fault.revive();
        await asked;
        // Where the service died before it had answered, there is no point.
        if ((await fault.point(name)) === null) judge.forget(name);
        else await walk.ended(name);
        await walk.next(`next-${round}`);
        if (round % SETTLE_EVERY === SETTLE_EVERY - 1) await walk.settleUp();
      });
    }
  });

  test("every point that is left reads as it did at first", () => walk.compareAll());
});
