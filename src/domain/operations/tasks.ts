import { type Clock, StillpointError } from "../../base/index.ts";
import type { Log } from "../ports.ts";

/** More work than this at once is refused: each costs memory, file handles and the host's disks. */
const MAX_TASKS = 256;

/** Why a task is told to stop. `closing`: go on after the next start. `abandoned`: somebody else undoes it. */
class Stop extends Error {
  override readonly name = "Stop";
  readonly why: "closing" | "abandoned";
  constructor(why: "closing" | "abandoned") {
    super(why === "closing" ? "The service is stopping." : "The restore point is being deleted.");
    this.why = why;
  }
}

/** Work that outlives the request that started it. It is all owned here: nothing runs on after `close`. */
export interface Tasks {
  /** Throws TooManyRequests when no more work is taken. Ask before anything is written. */
  admit(): void;
  /** Starts `work` under a name; a task of that name already running goes on instead. Errors end in the log. */
  start(name: string, work: (signal: AbortSignal) => Promise<void>): void;
  /** Tells a task to stop, and waits until it did, at most `ms`. Not running: done. */
  stop(name: string, ms: number): Promise<void>;
  /** Resolves when nothing runs any more. For tests and orderly ends. */
  idle(): Promise<void>;
  /** Tells all to stop, and waits until they did, at most `ms`. */
  close(ms: number): Promise<void>;
}

export function createTasks(clock: Clock, log: Log): Tasks {
  const running = new Map<string, { readonly abort: AbortController; readonly done: Promise<void> }>();
  let closing = false;

  const start: Tasks["start"] = (name, work) => {
    if (closing || running.has(name)) return;
    const abort = new AbortController();
    const done = Promise.resolve()
      .then(() => work(abort.signal))
      .catch((error: unknown) => {
        if (!abort.signal.aborted) log.error({ task: name, err: error }, "background work ended with an error");
      })
      .finally(() => running.delete(name));
    running.set(name, { abort, done });
  };

  const settled = async (dones: readonly Promise<void>[], ms: number) => {
    const over = new AbortController();
    await Promise.race([Promise.all(dones), clock.sleep(ms, over.signal).catch(() => {})]);
    over.abort();
  };

  return {
    admit: () => {
      if (closing) throw new StillpointError("ServiceUnavailable", "The service is stopping.");
      if (running.size >= MAX_TASKS)
        throw new StillpointError("TooManyRequests", `${running.size} operations are under way already.`, {
          remedy: "Try again when some of them have ended.",
        });
    },
    start,
    stop: async (name, ms) => {
      const task = running.get(name);
      if (!task) return;
      task.abort.abort(new Stop("abandoned"));
      await settled([task.done], ms);
    },
    idle: async () => {
      while (running.size > 0) await Promise.all([...running.values()].map((task) => task.done));
    },
    close: async (ms) => {
      closing = true;
      for (const task of running.values()) task.abort.abort(new Stop("closing"));
      await settled(
        [...running.values()].map((task) => task.done),
        ms,
      );
    },
  };
}
