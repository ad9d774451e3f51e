import type { DatabaseSync, StatementSync } from "node:sqlite";
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  SqliteAdapter,
  type SqliteDatabase,
  SqliteDriver,
  SqliteIntrospector,
  SqliteQueryCompiler,
  type SqliteStatement,
} from "kysely";

/** Prepared statements kept per connection. The catalog has about 60 shapes; the bound guards against a leak. */
const MAX_STATEMENTS = 256;

/** Kysely on Node's own SQLite: one connection, used by one transaction at a time (the driver's mutex). */
export function nodeSqliteDialect(db: DatabaseSync, begin: "begin" | "begin immediate"): Dialect {
  return {
    createAdapter: () => new TransactionalAdapter(),
    createDriver: () => new BeginningDriver(withStatementCache(db), begin),
    createIntrospector: (kysely) => new SqliteIntrospector(kysely),
    createQueryCompiler: () => new SqliteQueryCompiler(),
  };
}

/** SQLite's DDL is transactional; saying so makes a failed migration leave nothing behind. */
class TransactionalAdapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true;
  }
}

/** A writer takes the write lock at once: a transaction that read first could otherwise not be upgraded to writing. */
class BeginningDriver extends SqliteDriver {
  readonly #begin: string;
  constructor(database: SqliteDatabase, begin: string) {
    super({ database });
    this.#begin = begin;
  }
  override async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await connection.executeQuery(CompiledQuery.raw(this.#begin));
  }
}

function withStatementCache(db: DatabaseSync): SqliteDatabase {
  const cache = new Map<string, SqliteStatement>();
  return {
    close: () => db.close(),
    prepare: (text) => {
      const known = cache.get(text);
      if (known) return known;
      const fresh = wrap(db.prepare(text));
      if (cache.size >= MAX_STATEMENTS) cache.clear();
      cache.set(text, fresh);
      return fresh;
    },
  };
}

function wrap(statement: StatementSync): SqliteStatement {
  const values = (parameters: readonly unknown[]) => parameters as (string | number | null | Uint8Array)[];
  return {
    reader: statement.columns().length > 0,
    all: (parameters) => statement.all(...values(parameters)),
    run: (parameters) => statement.run(...values(parameters)),
    iterate: (parameters) => statement.iterate(...values(parameters)),
  };
}
