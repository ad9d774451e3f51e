import { type Kysely, sql } from "kysely";
import type { IdKey } from "../base/index.ts";
import type {
  Anchor,
  CatalogReads,
  Disk,
  Intent,
  JournalRow,
  Operation,
  PageRequest,
  Resource,
  ResourceGroup,
  RestorePoint,
  RestorePointCollection,
  Vm,
} from "../domain/index.ts";
import type { Tables } from "./schema.ts";

type Of<K extends Resource["kind"]> = Extract<Resource, { kind: K }>;

const TABLE_OF = { disk: "disks", vm: "vms", collection: "collections" } as const satisfies Record<
  Resource["kind"],
  keyof Tables
>;

/** All three tables have `key` and `body`; Kysely follows one name, not a union of them. */
export function tableOf(kind: Resource["kind"]): "disks" {
  return TABLE_OF[kind] as "disks";
}

/** Every look-up is by a key or an index; none grows with the number of points but the lists asked for. */
export function catalogReads(db: Kysely<Tables>): CatalogReads {
  return { ...resourceReads(db), ...pointReads(db), ...workReads(db), ...journalReads(db) };
}

type ResourceReads = Pick<
  CatalogReads,
  | "group"
  | "groups"
  | "subscriptions"
  | "resource"
  | "resources"
  | "diskByUid"
  | "diskByPath"
  | "vmByUid"
  | "collectionsOfVm"
>;

function resourceReads(db: Kysely<Tables>): ResourceReads {
  return {
    group: async (key) =>
      one<ResourceGroup>(
        await db.selectFrom("resource_groups").select("body").where("key", "=", key).executeTakeFirst(),
      ),
    groups: async (subscriptionId, page) =>
      many<ResourceGroup>(
        await db
          .selectFrom("resource_groups")
          .select("body")
          .where("subscription_id", "=", subscriptionId.toLowerCase())
          .where("key", ">", page.after ?? "")
          .orderBy("key")
          .limit(page.limit)
          .execute(),
      ),
    subscriptions: async () =>
      (
        await db.selectFrom("resource_groups").select("subscription_id").distinct().orderBy("subscription_id").execute()
      ).map((row) => row.subscription_id),
    resource: async <K extends Resource["kind"]>(kind: K, key: IdKey) =>
      one<Of<K>>(await db.selectFrom(tableOf(kind)).select("body").where("key", "=", key).executeTakeFirst()),
    resources: async <K extends Resource["kind"]>(kind: K, prefix: string, page: PageRequest) =>
      many<Of<K>>(
        await db
          .selectFrom(tableOf(kind))
          .select("body")
          .where("key", ">", page.after !== null && page.after > prefix ? page.after : prefix)
          .where("key", "<", prefixEnd(prefix))
          .orderBy("key")
          .limit(page.limit)
          .execute(),
      ),
    diskByUid: async (uid) =>
      one<Disk>(await db.selectFrom("disks").select("body").where("uid", "=", uid).executeTakeFirst()),
    diskByPath: async (path) =>
      one<Disk>(await db.selectFrom("disks").select("body").where("path", "=", path).executeTakeFirst()),
    vmByUid: async (uid) =>
      one<Vm>(await db.selectFrom("vms").select("body").where("uid", "=", uid).executeTakeFirst()),
    collectionsOfVm: async (vmKey) =>
      many<RestorePointCollection>(
        await db.selectFrom("collections").select("body").where("source_key", "=", vmKey).orderBy("key").execute(),
      ),
  };
}

type PointReads = Pick<
  CatalogReads,
  "point" | "points" | "pointByUid" | "countPoints" | "creating" | "unsettledPoints" | "liveManifests" | "pins"
>;

function pointReads(db: Kysely<Tables>): PointReads {
  const bodies = db.selectFrom("points").select("body");
  return {
    point: async (key) => one<RestorePoint>(await bodies.where("key", "=", key).executeTakeFirst()),
    pointByUid: async (uid) => one<RestorePoint>(await bodies.where("uid", "=", uid).executeTakeFirst()),
    points: async (collectionKey, page) =>
      many<RestorePoint>(
        await bodies
          .where("collection_key", "=", collectionKey)
          .where("key", ">", page.after ?? "")
          .orderBy("key")
          .limit(page.limit)
          .execute(),
      ),
    countPoints: async (vm) => {
      // A literal, not a parameter: only so does SQLite see that the partial index fits.
      const row = await db
        .selectFrom("points")
        .select((eb) => eb.fn.countAll<number>().as("n"))
        .where("vm_uid", "=", vm)
        .where("state", "!=", sql.lit("Failed"))
        .executeTakeFirstOrThrow();
      return Number(row.n);
    },
    creating: async (vm) =>
      many<RestorePoint>(
        await bodies.where("state", "in", ["Creating", "Committing"]).where("vm_uid", "=", vm).orderBy("key").execute(),
      ),
    unsettledPoints: async () =>
      many<RestorePoint>(
        await bodies.where("state", "in", ["Creating", "Committing", "Deleting"]).orderBy("key").execute(),
      ),
    liveManifests: async () =>
      (await db.selectFrom("points").select(["id", "manifest"]).where("manifest", "is not", null).execute()).map(
        (row) => ({
          pointId: row.id as RestorePoint["id"],
          manifest: row.manifest as string,
        }),
      ),
    pins: async () =>
      (await db.selectFrom("pins").selectAll().orderBy("operation_id").execute()).map((row) => ({
        point: row.point_uid as RestorePoint["uid"],
        operation: row.operation_id as Operation["id"],
      })),
  };
}

type WorkReads = Pick<
  CatalogReads,
  "operation" | "openOperations" | "openOperationsOf" | "intents" | "intent" | "intentsOfVm" | "anchor" | "anchors"
>;

function workReads(db: Kysely<Tables>): WorkReads {
  const open = db.selectFrom("operations").select("body").where("status", "=", sql.lit("InProgress"));
  const intents = db.selectFrom("intents").select("body");
  const anchors = db.selectFrom("anchors").select("body");
  return {
    operation: async (id) =>
      one<Operation>(await db.selectFrom("operations").select("body").where("id", "=", id).executeTakeFirst()),
    openOperations: async () => many<Operation>(await open.orderBy("id").execute()),
    openOperationsOf: async (resource) =>
      many<Operation>(await open.where("resource_key", "=", resource).orderBy("id").execute()),
    intents: async () => many<Intent>(await intents.orderBy("capture").execute()),
    intent: async (capture) => one<Intent>(await intents.where("capture", "=", capture).executeTakeFirst()),
    intentsOfVm: async (vm) => many<Intent>(await intents.where("vm_uid", "=", vm).orderBy("capture").execute()),
    anchor: async (disk) => one<Anchor>(await anchors.where("disk_uid", "=", disk).executeTakeFirst()),
    anchors: async () => many<Anchor>(await anchors.orderBy("disk_uid").execute()),
  };
}

type JournalReads = Pick<CatalogReads, "journalHead" | "journalHash" | "unpublished" | "setting">;

function journalReads(db: Kysely<Tables>): JournalReads {
  return {
    journalHead: async () => {
      const newest = db.selectFrom("journal").select(["number", "hash"]).orderBy("number", "desc").limit(1);
      const row = await newest.executeTakeFirst();
      return row ? { number: row.number, hash: row.hash } : null;
    },
    journalHash: async (number) =>
      (await db.selectFrom("journal").select("hash").where("number", "=", number).executeTakeFirst())?.hash ?? null,
    unpublished: async () =>
      (await db.selectFrom("journal").selectAll().where("published", "=", sql.lit(0)).orderBy("number").execute()).map(
        (row): JournalRow => ({ ...row, published: false }),
      ),
    setting: async (name) =>
      (await db.selectFrom("settings").select("value").where("name", "=", name).executeTakeFirst())?.value ?? null,
  };
}

function one<T>(row: { readonly body: string } | undefined): T | null {
  return row ? (JSON.parse(row.body) as T) : null;
}

function many<T>(rows: readonly { readonly body: string }[]): readonly T[] {
  return rows.map((row) => JSON.parse(row.body) as T);
}

/** The first string after all that start with `prefix`. Keys compare by code point, as UTF-8 does. */
function prefixEnd(prefix: string): string {
  const last = prefix.codePointAt(prefix.length - 1) ?? 0;
  return prefix.slice(0, -1) + String.fromCodePoint(last + 1);
}
