/**
 * Tables of the catalog. Each row holds the domain's value as JSON in `body` (the display case of ids lives there) and,
 * beside it, only what is searched for. Keys are lower-cased ids.
 */
export interface Tables {
  resource_groups: { key: string; subscription_id: string; body: string };
  disks: { key: string; uid: string; path: string | null; body: string };
  vms: { key: string; uid: string; body: string };
  collections: { key: string; source_key: string; body: string };
  points: {
    key: string;
    /** The key in its display case, so that the list of all manifests needs no bodies. */
    id: string;
    uid: string;
    collection_key: string;
    vm_uid: string;
    state: string;
    manifest: string | null;
    body: string;
  };
  operations: { id: string; resource_key: string; status: string; body: string };
  intents: { capture: string; vm_uid: string; body: string };
  anchors: { disk_uid: string; body: string };
  pins: { point_uid: string; operation_id: string };
  /** `bytes` are empty once published: the repository has them. */
  journal: { number: number; hash: string; bytes: Uint8Array; published: number };
  settings: { name: string; value: string };
}
