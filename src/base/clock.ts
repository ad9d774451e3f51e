import { setTimeout as delay } from "node:timers/promises";

/** The only source of time. `Date.now` and timers stand nowhere else, so that a test can turn the hands. */
export interface Clock {
  /** Wall time: for what people read and what retention compares. */
  now(): Date;
  /** Milliseconds from an arbitrary start, never going back: for durations and deadlines. */
  monotonicMs(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
  sleep: async (ms, signal) => {
    await delay(ms, undefined, signal ? { signal } : {});
  },
};
