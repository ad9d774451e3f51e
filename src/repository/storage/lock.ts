import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { StillpointError } from "../../base/index.ts";

/** The lock database of a folder. It holds nothing; only its lock counts. */
export const LOCK_FILE = "lock.db";

export interface Lock {
  release(): void;
}

/**
 * Takes the folder for this process: an exclusive SQLite transaction that stays open. The system lets it go when the
 * process ends in whatever way, so it never has to be broken by a guess about time. Throws RepositoryUnavailable when
 * another process holds it.
 */
export function lockFolder(folder: string): Lock {
  const path = join(folder, LOCK_FILE);
  const db = new DatabaseSync(path, { timeout: 0 });
  try {
    db.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    db.close();
    throw new StillpointError("RepositoryUnavailable", `The repository ${folder} is in use by another process.`, {
      target: folder,
      remedy: "One service writes to a repository at a time; stop the other one.",
      cause: error,
    });
  }
  return { release: () => db.close() };
}
