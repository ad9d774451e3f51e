import { StillpointError } from "../base/index.ts";

/** A bounded number of requests in flight; those above it wait in line, and the line is bounded too. */
export interface Slots {
  take(): Promise<void>;
  free(): void;
  /** Everyone in line gets the error, and so does everyone who comes later. */
  shut(reason: Error): void;
}

/** A caller that starts this many requests without waiting for any has a mistake, not a need. */
const MAX_WAITING = 4096;

export function createSlots(depth: number): Slots {
  const line: { readonly go: () => void; readonly fail: (reason: Error) => void }[] = [];
  let taken = 0;
  let closedBy: Error | null = null;
  return {
    async take() {
      if (closedBy) throw closedBy;
      if (taken < depth) {
        taken++;
        return;
      }
      if (line.length >= MAX_WAITING) throw new StillpointError("InternalError", "Too many NBD requests wait in line.");
      await new Promise<void>((go, fail) => line.push({ go, fail }));
    },
    free() {
      const next = line.shift();
      if (next) next.go();
      else taken--;
    },
    shut(reason) {
      closedBy ??= reason;
      for (const waiter of line.splice(0)) waiter.fail(reason);
    },
  };
}
