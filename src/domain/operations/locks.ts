/** Mutual exclusion by key, in order of arrival. */
export interface KeyedLock {
  /** Runs `work` when no other holds `key`. While waiting, rejects with the signal's reason when it aborts. */
  hold<T>(key: string, signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

export function createKeyedLock(): KeyedLock {
  const tails = new Map<string, Promise<void>>();
  return {
    hold: async (key, signal, work) => {
      const before = tails.get(key) ?? Promise.resolve();
      const mine = Promise.withResolvers<void>();
      const tail = before.then(() => mine.promise);
      tails.set(key, tail);
      try {
        await abortable(before, signal);
        return await work();
      } finally {
        mine.resolve();
        if (tails.get(key) === tail) tails.delete(key);
      }
    },
  };
}

async function abortable(wait: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.race([wait, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    aborted.promise.catch(() => {});
  }
}
