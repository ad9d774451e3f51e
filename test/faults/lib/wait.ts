import { systemClock } from "../../../src/base/index.ts";

const POLL_MS = 30;

/** Asks again and again until there is an answer; throws `otherwise` when there was none within `timeoutMs`. */
export async function within<T>(
  timeoutMs: number,
  otherwise: string | (() => string),
  ask: () => Promise<T | null>,
): Promise<T> {
  const endsMs = systemClock.monotonicMs() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (systemClock.monotonicMs() > endsMs) throw new Error(typeof otherwise === "string" ? otherwise : otherwise());
    await systemClock.sleep(POLL_MS);
  }
}
