/** Tells a running guard or service, started with STILLPOINT_PROBE, where to die or to wait; and reads where it was. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { within } from "./wait.ts";

export interface Orders {
  /** For the environment of the process. */
  readonly env: Readonly<Record<string, string>>;
  /** Ends the process at `step:moment`, the n-th time it gets there. */
  kill(at: string, times?: number): void;
  /** The process waits at `step:moment` until it is given another order, or none. */
  hold(at: string): void;
  none(): void;
  /** Forgets the steps so far. */
  forget(): void;
  /** `step:moment` of each step since, in order. */
  steps(): readonly string[];
  /** Waits until the process has reached `step:moment` since {@link forget}. */
  reached(at: string): Promise<void>;
}

const REACH_MS = 120_000;

/** `file` lies in a folder that the process may write to. */
export function makeOrders(file: string): Orders {
  const log = `${file}.steps`;
  const steps = () => {
    try {
      return readFileSync(log, "utf8").split("\n").filter(Boolean);
    } catch {
      return [];
    }
  };
  const order = (text: string) => writeFileSync(file, text, { mode: 0o644 });
  return {
    env: { STILLPOINT_PROBE: file },
    kill: (at, times = 1) => order(`kill ${at} ${times}`),
    hold: (at) => order(`hold ${at}`),
    none: () => order(""),
    forget: () => rmSync(log, { force: true }),
    steps,
    reached: async (at) =>
      void (await within(
        REACH_MS,
        () => `${at} was not reached; the last steps: ${steps().slice(-5).join(", ")}`,
        async () => steps().includes(at) || null,
      )),
  };
}
