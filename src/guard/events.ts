import type { GuardEvent } from "./protocol.ts";

/** The guard's events of one life, the last of them kept for services that were away. */
export interface EventLog {
  readonly epoch: string;
  add(event: Pick<GuardEvent, "kind" | "vm" | "state">): void;
  /** The events after `number`, or null when some of them are not kept any more. */
  after(epoch: string, number: number): readonly GuardEvent[] | null;
  last(): number;
  /** Called with each new event until the returned function is. */
  subscribe(listener: (event: GuardEvent) => void): () => void;
}

const KEPT = 1024;

export function createEventLog(epoch: string): EventLog {
  const kept: GuardEvent[] = [];
  const listeners = new Set<(event: GuardEvent) => void>();
  let number = 0;
  return {
    epoch,
    add: (what) => {
      const event: GuardEvent = { epoch, number: ++number, ...what };
      kept.push(event);
      if (kept.length > KEPT) kept.shift();
      for (const listener of listeners) listener(event);
    },
    after: (theirs, from) => {
      const first = number - kept.length;
      if (theirs !== epoch || from < first || from > number) return null;
      return kept.slice(from - first);
    },
    last: () => number,
    subscribe: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
