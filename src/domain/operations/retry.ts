import type { Clock } from "../../base/index.ts";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

/**
 * `work` again and again, with pauses that double up to 30 s, until it succeeds, `attempts` are used up (the last
 * error is thrown), `again` says that another try is useless, or the signal aborts.
 */
export async function retrying<T>(
  clock: Clock,
  signal: AbortSignal,
  attempts: number,
  again: (error: unknown) => boolean,
  work: () => Promise<T>,
): Promise<T> {
  for (let tried = 1, pauseMs = FIRST_PAUSE_MS; ; tried++, pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
    signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (signal.aborted || tried >= attempts || !again(error)) throw error;
      await clock.sleep(pauseMs, signal);
    }
  }
}
