import type { Kysely } from "kysely";
import { idKey } from "../base/index.ts";
import type { CatalogTx, Resource } from "../domain/index.ts";
import { catalogReads, tableOf } from "./reads.ts";
import type { Tables } from "./schema.ts";

/** Reads that see the transaction's own writes, and the writes. `put` replaces what has the same key. */
export function catalogTx(db: Kysely<Tables>): CatalogTx {
  return { ...catalogReads(db), ...resourceWrites(db), ...workWrites(db), ...journalWrites(db) };
}

type ResourceWrites = Pick<
  CatalogTx,
  "putGroup" | "deleteGroup" | "putResource" | "deleteResource" | "putPoint" | "deletePoint"
>;

function resourceWrites(db: Kysely<Tables>): ResourceWrites {
  return {
    putGroup: async (group) => {
      const row = { subscription_id: group.subscriptionId.toLowerCase(), body: JSON.stringify(group) };
      await upsert(db, "resource_groups", "key", { key: idKey(group.id), ...row });
    },
    deleteGroup: async (key) => {
      await db.deleteFrom("resource_groups").where("key", "=", key).execute();
    },
    putResource: (resource) => putResource(db, resource),
    deleteResource: async (kind, key) => {
      await db.deleteFrom(tableOf(kind)).where("key", "=", key).execute();
    },
    putPoint: async (point) => {
      await upsert(db, "points", "key", {
        key: idKey(point.id),
        id: point.id,
        uid: point.uid,
        collection_key: idKey(point.collectionId),
        vm_uid: point.vmUid,
        state: point.state,
        manifest: point.manifest,
        body: JSON.stringify(point),
      });
    },
    deletePoint: async (key) => {
      await db.deleteFrom("points").where("key", "=", key).execute();
    },
  };
}

async function putResource(db: Kysely<Tables>, resource: Resource): Promise<void> {
  const key = idKey(resource.id);
  const body = JSON.stringify(resource);
  switch (resource.kind) {
    case "disk":
      return upsert(db, "disks", "key", { key, uid: resource.diskUid, path: resource.path, body });
    case "vm":
      return upsert(db, "vms", "key", { key, uid: resource.vmUid, body });
    case "collection":
      return upsert(db, "collections", "key", { key, source_key: idKey(resource.source.id), body });
  }
}

type WorkWrites = Pick<
  CatalogTx,
  "putOperation" | "putIntent" | "deleteIntent" | "putAnchor" | "deleteAnchor" | "pin" | "unpin"
>;

function workWrites(db: Kysely<Tables>): WorkWrites {
  return {
    putOperation: (operation) =>
      upsert(db, "operations", "id", {
        id: operation.id,
        resource_key: idKey(operation.resourceId),
        status: operation.status,
        body: JSON.stringify(operation),
      }),
    putIntent: (intent) =>
      upsert(db, "intents", "capture", {
        capture: intent.capture,
        vm_uid: intent.vmUid,
        body: JSON.stringify(intent),
      }),
    deleteIntent: async (capture) => {
      await db.deleteFrom("intents").where("capture", "=", capture).execute();
    },
    putAnchor: (anchor) =>
      upsert(db, "anchors", "disk_uid", { disk_uid: anchor.diskUid, body: JSON.stringify(anchor) }),
    deleteAnchor: async (disk) => {
      await db.deleteFrom("anchors").where("disk_uid", "=", disk).execute();
    },
    pin: async (point, operation) => {
      await db
        .insertInto("pins")
        .values({ point_uid: point, operation_id: operation })
        .onConflict((conflict) => conflict.doNothing())
        .execute();
    },
    unpin: async (operation) => {
      await db.deleteFrom("pins").where("operation_id", "=", operation).execute();
    },
  };
}

type JournalWrites = Pick<CatalogTx, "appendJournal" | "markPublished" | "putSetting">;

function journalWrites(db: Kysely<Tables>): JournalWrites {
  return {
    appendJournal: async (row) => {
      // A plain insert: a number that is taken is a broken invariant, and the primary key says so.
      await db
        .insertInto("journal")
        .values({ ...row, published: row.published ? 1 : 0 })
        .execute();
    },
    markPublished: async (number) => {
      await db
        .updateTable("journal")
        .set({ published: 1, bytes: new Uint8Array(0) })
        .where("number", "=", number)
        .execute();
    },
    putSetting: async (name, value) => {
      if (value === null) await db.deleteFrom("settings").where("name", "=", name).execute();
      else await upsert(db, "settings", "name", { name, value });
    },
  };
}

async function upsert<T extends keyof Tables, K extends keyof Tables[T] & string>(
  db: Kysely<Tables>,
  table: T,
  key: K,
  row: Tables[T],
): Promise<void> {
  const { [key]: _, ...rest } = row as Record<string, unknown>;
  // Kysely cannot follow a table name that is a type parameter; the signature above holds row and table together.
  await (db as unknown as Kysely<Record<string, Record<string, unknown>>>)
    .insertInto(table as string)
    .values(row as Record<string, unknown>)
    .onConflict((conflict) => conflict.column(key).doUpdateSet(rest))
    .execute();
}
