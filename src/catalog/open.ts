import { open } from "node:fs/promises";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Kysely } from "kysely";
import { StillpointError, syncDirectory } from "../base/index.ts";
import type { Catalog } from "../domain/index.ts";
import { nodeSqliteDialect } from "./dialect.ts";
import { holdLock } from "./lock.ts";
import { migrate } from "./migrations.ts";
import { catalogReads } from "./reads.ts";
import type { Tables } from "./schema.ts";
import { catalogTx } from "./writes.ts";

/** How long SQLite waits for a lock that another program (a backup, a shell) holds on the catalog. */
const BUSY_TIMEOUT_MS = 5_000;

/**
 * Opens the catalog, creating or migrating it; `:memory:` gives one that ends with the process. A file is held for this
 * process alone (a lock database `{path}.lock` beside it): Conflict when another service has it. On a file, reads
 * go on beside a transaction and see the last committed state; in memory they wait for it.
 */
export async function openCatalog(path: string): Promise<Catalog> {
  if (path === ":memory:") return catalogOn(await openWriter(path), null, null);
  await createPrivately(path);
  await createPrivately(`${path}.lock`);
  const lock = holdLock(`${path}.lock`);
  try {
    const writer = await openWriter(path);
    const reader = new DatabaseSync(path, { readOnly: true, timeout: BUSY_TIMEOUT_MS });
    return catalogOn(writer, kyselyOn(reader, "begin"), lock);
  } catch (error) {
    lock.close();
    throw error;
  }
}

async function openWriter(path: string): Promise<Kysely<Tables>> {
  const db = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS, enableForeignKeyConstraints: true });
  try {
    // FULL: in WAL mode only this syncs the log at every commit, and a commit that a power cut undoes is no commit.
    db.exec("pragma journal_mode = wal; pragma synchronous = full");
    const writer = kyselyOn(db, "begin immediate");
    await migrate(writer);
    return writer;
  } catch (error) {
    db.close();
    throw error;
  }
}

function catalogOn(writer: Kysely<Tables>, reader: Kysely<Tables> | null, lock: { close(): void } | null): Catalog {
  return {
    transaction: (work) => guarded(() => writer.transaction().execute((trx) => work(catalogTx(trx)))),
    read: (work) => guarded(() => (reader ?? writer).transaction().execute((trx) => work(catalogReads(trx)))),
    close: async () => {
      // The reader first: the last connection to close folds the log back into the file, and it must be able to write.
      await reader?.destroy();
      await writer.destroy();
      lock?.close();
    },
  };
}

function kyselyOn(db: DatabaseSync, begin: "begin" | "begin immediate"): Kysely<Tables> {
  return new Kysely<Tables>({ dialect: nodeSqliteDialect(db, begin) });
}

/** Only the service's user may read the catalog; SQLite gives its log and shared memory the same mode. */
async function createPrivately(path: string): Promise<void> {
  const handle = await open(path, "a", 0o600);
  await handle.close();
  await syncDirectory(dirname(path));
}

const SQLITE_FULL = 13;

/** Errors of the database become errors with a code; those of the work pass through. */
async function guarded<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Error) || (error as NodeJS.ErrnoException).code !== "ERR_SQLITE_ERROR") throw error;
    const full = (error as Error & { errcode?: number }).errcode === SQLITE_FULL;
    throw new StillpointError(
      full ? "InsufficientSpace" : "InternalError",
      full ? "The catalog's disk is full; nothing was changed." : `The catalog failed: ${error.message}.`,
      { cause: error },
    );
  }
}
