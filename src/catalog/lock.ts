import { DatabaseSync } from "node:sqlite";
import { StillpointError } from "../base/index.ts";

/**
 * Holds the data folder for this process: an open `BEGIN EXCLUSIVE` on a database of its own, so that the operating
 * system lets go when the process dies, whatever it dies of. Never a clock, never a pid file.
 * Throws Conflict when another service holds it. Release with `close`.
 */
export function holdLock(path: string): { close(): void } {
  const db = new DatabaseSync(path, { timeout: 0 });
  try {
    db.exec("begin exclusive");
  } catch (error) {
    db.close();
    if (!/locked|busy/i.test((error as Error).message)) throw error;
    throw new StillpointError("Conflict", `Another Stillpoint service uses this data folder (${path} is locked).`, {
      remedy: "Stop that service first, or give this one a data folder of its own.",
      cause: error,
    });
  }
  return { close: () => db.close() };
}
