import { type Kysely, type Migration, Migrator, sql } from "kysely";
import { StillpointError } from "../base/index.ts";
import type { Tables } from "./schema.ts";

/** In order of their names; one that has been released is never changed again. */
const MIGRATIONS: Readonly<Record<string, Migration>> = { "0001-first": { up: first } };

/** Brings the catalog to this version's shape; all of it or nothing. Refuses a catalog of a newer version. */
export async function migrate(db: Kysely<Tables>): Promise<void> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => ({ ...MIGRATIONS }) } });
  const { error } = await migrator.migrateToLatest();
  if (error === undefined) return;
  if (error instanceof Error && error.message.startsWith("corrupted migrations"))
    throw new StillpointError("Conflict", `This catalog was written by a newer Stillpoint (${error.message}).`, {
      remedy: "Run that version, or restore the catalog's backup made before the upgrade.",
      cause: error,
    });
  throw new StillpointError("InternalError", `The catalog could not be brought to this version: ${String(error)}.`, {
    cause: error,
  });
}

async function first(db: Kysely<Tables>): Promise<void> {
  await resources(db);
  await points(db);
  await work(db);
}

async function resources(db: Kysely<Tables>): Promise<void> {
  const { schema } = db;
  await schema
    .createTable("resource_groups")
    .addColumn("key", "text", (c) => c.primaryKey())
    .addColumn("subscription_id", "text", (c) => c.notNull())
    .addColumn("body", "text", (c) => c.notNull())
    .execute();
  await schema
    .createIndex("resource_groups_by_subscription")
    .on("resource_groups")
    .columns(["subscription_id", "key"])
    .execute();
  // One disk per file: two rows on one path would let deleting one take the other's bytes.
  await schema
    .createTable("disks")
    .addColumn("key", "text", (c) => c.primaryKey())
    .addColumn("uid", "text", (c) => c.notNull().unique())
    .addColumn("path", "text", (c) => c.unique())
    .addColumn("body", "text", (c) => c.notNull())
    .execute();
  await schema
    .createTable("vms")
    .addColumn("key", "text", (c) => c.primaryKey())
    .addColumn("uid", "text", (c) => c.notNull().unique())
    .addColumn("body", "text", (c) => c.notNull())
    .execute();
  await schema
    .createTable("collections")
    .addColumn("key", "text", (c) => c.primaryKey())
    .addColumn("source_key", "text", (c) => c.notNull())
    .addColumn("body", "text", (c) => c.notNull())
    .execute();
  await schema.createIndex("collections_by_source").on("collections").columns(["source_key", "key"]).execute();
}

async function points(db: Kysely<Tables>): Promise<void> {
  const { schema } = db;
  await schema
    .createTable("points")
    .addColumn("key", "text", (c) => c.primaryKey())
    .addColumn("id", "text", (c) => c.notNull())
    .addColumn("uid", "text", (c) => c.notNull().unique())
    .addColumn("collection_key", "text", (c) => c.notNull().references("collections.key"))
    .addColumn("vm_uid", "text", (c) => c.notNull())
    .addColumn("state", "text", (c) => c.notNull())
    .addColumn("manifest", "text")
    .addColumn("body", "text", (c) => c.notNull())
    .execute();
  await schema.createIndex("points_by_collection").on("points").columns(["collection_key", "key"]).execute();
  // Holds no Failed points, so that counting towards the limit reads at most the limit's number of entries.
  await schema
    .createIndex("points_counted")
    .on("points")
    .column("vm_uid")
    .where(sql.ref("state"), "!=", "Failed")
    .execute();
  await schema.createIndex("points_by_state").on("points").columns(["state", "vm_uid"]).execute();
}

async function work(db: Kysely<Tables>): Promise<void> {
  const { schema } = db;
  await schema
    .createTable("operations")
    .addColumn("id", "text", (c) => c.primaryKey())
    .addColumn("resource_key", "text", (c) => c.notNull())
    .addColumn("status", "text", (c) => c.notNull())
    .addColumn("body", "text", (c) => c.notNull())
    .execute();
  await schema
    .createIndex("operations_open")
    .on("operations")
    .column("resource_key")
    .where(sql.ref("status"), "=", "InProgress")
    .execute();
  await schema
    .createTable("intents")
    .addColumn("capture", "text", (c) => c.primaryKey())
    .addColumn("vm_uid", "text", (c) => c.notNull())
    .addColumn("body", "text", (c) => c.notNull())
    .execute();
  await schema
    .createTable("anchors")
    .addColumn("disk_uid", "text", (c) => c.primaryKey())
    .addColumn("body", "text", (c) => c.notNull())
    .execute();
  // A pinned point cannot be deleted, whatever the code above forgets.
  await schema
    .createTable("pins")
    .addColumn("operation_id", "text", (c) => c.notNull().references("operations.id"))
    .addColumn("point_uid", "text", (c) => c.notNull().references("points.uid"))
    .addPrimaryKeyConstraint("pins_key", ["operation_id", "point_uid"])
    .execute();
  await schema.createIndex("pins_by_point").on("pins").column("point_uid").execute();
  await schema
    .createTable("journal")
    .addColumn("number", "integer", (c) => c.primaryKey())
    .addColumn("hash", "text", (c) => c.notNull())
    .addColumn("bytes", "blob", (c) => c.notNull())
    .addColumn("published", "integer", (c) => c.notNull())
    .execute();
  await schema
    .createIndex("journal_unpublished")
    .on("journal")
    .column("number")
    .where(sql.ref("published"), "=", 0)
    .execute();
  await schema
    .createTable("settings")
    .addColumn("name", "text", (c) => c.primaryKey())
    .addColumn("value", "text", (c) => c.notNull())
    .execute();
}
