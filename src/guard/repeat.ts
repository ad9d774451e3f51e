import type { Clock } from "../base/index.ts";
import type { GuardLog } from "./context.ts";

/** Reports what is tried again every second: at once when it is news, then once a minute. */
export type Repeated = (key: string, message: string, error: unknown) => void;

const AGAIN_MS = 60_000;
const MAX_KEYS = 1_000;

export function createRepeated(log: GuardLog, clock: Clock): Repeated {
  const said = new Map<string, { readonly words: string; readonly atMs: number }>();
  return (key, message, error) => {
    const words = `${message}: ${(error as Error).message}`;
    const last = said.get(key);
    const nowMs = clock.monotonicMs();
    if (last?.words === words && nowMs - last.atMs < AGAIN_MS) return;
    if (said.size >= MAX_KEYS) said.clear();
    said.set(key, { words, atMs: nowMs });
    log.error({ err: error, what: key }, message);
  };
}
