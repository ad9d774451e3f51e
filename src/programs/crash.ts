import { appendFileSync, readFileSync } from "node:fs";
import { type Probe, systemClock } from "../base/index.ts";

/**
 * Eyes and hands of the crash tests. Without one of these variables, and so in production, there is no probe at all.
 * - STILLPOINT_CRASH_AT=`step:before` or `step:after` ends this process there, as kill -9 would.
 * - STILLPOINT_PROBE=FILE appends each `step:moment` to FILE.steps, and FILE says what is to happen, so that a process
 *   which is already up can be told: `kill step:moment [n]` (at the n-th time since FILE was written), or
 *   `hold step:moment`, which waits there until FILE says something else.
 */
export function crashProbe(): Probe | undefined {
  const wanted = process.env["STILLPOINT_CRASH_AT"];
  if (wanted)
    return (step, moment) => {
      if (`${step}:${moment}` === wanted) process.kill(process.pid, "SIGKILL");
    };
  const file = process.env["STILLPOINT_PROBE"];
  return file ? ordered(file) : undefined;
}

const HOLD_POLL_MS = 20;

function ordered(file: string): Probe {
  let order = "";
  let seen = 0;
  return (step, moment) => {
    const at = `${step}:${moment}`;
    appendFileSync(`${file}.steps`, `${at}\n`);
    const now = readOrder(file);
    if (now !== order) [order, seen] = [now, 0];
    const [what, where, times] = order.split(" ");
    if (where !== at) return;
    if (what === "kill" && ++seen === Number(times ?? 1)) process.kill(process.pid, "SIGKILL");
    if (what === "hold") return held(file, order);
  };
}

async function held(file: string, order: string): Promise<void> {
  while (readOrder(file) === order) await systemClock.sleep(HOLD_POLL_MS);
}

function readOrder(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
}
