import type { Probe } from "../base/index.ts";

/**
 * For the crash-point walk: STILLPOINT_CRASH_AT=`step:before` or `step:after` ends this process there, as kill -9
 * would. Unset, and so in production, there is no probe at all.
 */
export function crashProbe(): Probe | undefined {
  const wanted = process.env["STILLPOINT_CRASH_AT"];
  if (!wanted) return undefined;
  return (step, moment) => {
    if (`${step}:${moment}` === wanted) process.kill(process.pid, "SIGKILL");
  };
}
