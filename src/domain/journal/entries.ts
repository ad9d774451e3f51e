/** Payloads of the journal entries the domain writes: from these alone a catalog is rebuilt. All are JSON. */
import type { ResourceGroup, RestorePoint, RestorePointCollection } from "../model.ts";

export interface CollectionPut {
  readonly collection: RestorePointCollection;
  /** The group it lies in, as it was: groups have no entries of their own. */
  readonly group: ResourceGroup;
}
export interface CollectionDelete {
  readonly collectionId: string;
}
export interface Commit {
  readonly manifest: string;
  readonly point: string;
  readonly pointId: string;
  readonly collectionId: string;
  /** The point as Succeeded, with its record. */
  readonly resource: RestorePoint;
}
export interface Delete {
  readonly point: string;
  readonly pointId: string;
}

export interface Entries {
  readonly "collection-put": CollectionPut;
  readonly "collection-delete": CollectionDelete;
  readonly commit: Commit;
  readonly delete: Delete;
}
export type EntryKind = keyof Entries;

export function isDataEntry(kind: string): kind is EntryKind {
  return kind === "collection-put" || kind === "collection-delete" || kind === "commit" || kind === "delete";
}
