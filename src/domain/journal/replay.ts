import { idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { RestorePoint } from "../model.ts";
import type { Catalog, CatalogTx, JournalItem, RepositoryReads } from "../ports.ts";
import type { CollectionDelete, CollectionPut, Commit, Delete } from "./entries.ts";

/** Entries applied per transaction: bounds memory, and a crash in between is gone on from by the next replay. */
const BATCH = 200;

export interface Replayed {
  readonly entries: number;
  /** Points that the replayed entries deleted, with the manifests they had. */
  readonly deleted: readonly { readonly pointId: ResourceId; readonly manifest: string }[];
}

/**
 * Applies the repository's journal from that number on to the catalog, which must end right before it. Durable when
 * it returns; repeatable. Entries that concern the repository alone (format, keys, checkpoints) only move the head.
 */
export async function replayJournal(catalog: Catalog, repository: RepositoryReads, from: number): Promise<Replayed> {
  const deleted: { pointId: ResourceId; manifest: string }[] = [];
  let entries = 0;
  let batch: JournalItem[] = [];
  const flush = async () => {
    const last = batch.at(-1);
    if (!last) return;
    await catalog.transaction(async (tx) => {
      for (const item of batch) deleted.push(...(await apply(tx, item)));
      await tx.appendJournal({ number: last.number, hash: last.hash, bytes: new Uint8Array(0), published: true });
    });
    entries += batch.length;
    batch = [];
  };
  for await (const item of repository.readJournal(from)) {
    batch.push(item);
    if (batch.length >= BATCH) await flush();
  }
  await flush();
  return { entries, deleted };
}

type Gone = readonly { readonly pointId: ResourceId; readonly manifest: string }[];

async function apply(tx: CatalogTx, item: JournalItem): Promise<Gone> {
  switch (item.kind) {
    case "collection-put":
      await putCollection(tx, item.payload as CollectionPut);
      return [];
    case "collection-delete":
      return deleteCollection(tx, (item.payload as CollectionDelete).collectionId as ResourceId);
    case "commit":
      await putPoint(tx, item);
      return [];
    case "delete":
      return deletePoint(tx, item.payload as Delete);
    default:
      return [];
  }
}

async function putCollection(tx: CatalogTx, payload: CollectionPut): Promise<void> {
  await tx.putGroup(payload.group);
  await tx.putResource(payload.collection);
}

async function deleteCollection(tx: CatalogTx, id: ResourceId): Promise<Gone> {
  const gone: { pointId: ResourceId; manifest: string }[] = [];
  for (;;) {
    const points = await tx.points(idKey(id), { after: null, limit: BATCH });
    if (points.length === 0) break;
    for (const point of points) gone.push(...(await dropPoint(tx, point)));
  }
  await tx.deleteResource("collection", idKey(id));
  return gone;
}

async function putPoint(tx: CatalogTx, item: JournalItem): Promise<void> {
  const { resource, collectionId } = item.payload as Commit;
  if (!(await tx.resource("collection", idKey(collectionId as ResourceId))))
    throw new StillpointError(
      "RepositoryDamaged",
      `Journal entry ${item.number} commits a point to the collection ${collectionId}, which no entry before it made.`,
    );
  await tx.putPoint(resource);
}

async function deletePoint(tx: CatalogTx, payload: Delete): Promise<Gone> {
  const point = await tx.point(idKey(payload.pointId as ResourceId));
  return point?.uid === payload.point ? dropPoint(tx, point) : [];
}

async function dropPoint(tx: CatalogTx, point: RestorePoint): Promise<Gone> {
  await tx.deletePoint(idKey(point.id));
  return point.manifest === null ? [] : [{ pointId: point.id, manifest: point.manifest }];
}
