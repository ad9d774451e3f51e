/** Branded values: a string or number that says what it is, so that one id never passes for another. */
export type Brand<T, Name extends string> = T & { readonly __brand: Name };

/** An ARM resource id in its display case, without a trailing slash: `/subscriptions/…`. Compare with {@link idKey}. */
export type ResourceId = Brand<string, "ResourceId">;
/** The lower-case form of a {@link ResourceId}: the only form that is compared or stored as a key. */
export type IdKey = Brand<string, "IdKey">;
/** Unique incarnation id of a VM (Azure's `vmId`): a lower-case UUID that is never used again. */
export type VmUid = Brand<string, "VmUid">;
/** Unique incarnation id of a disk (Azure's `uniqueId`): a lower-case UUID that is never used again. */
export type DiskUid = Brand<string, "DiskUid">;
/** Unique incarnation id of a restore point: a lower-case UUID. A retried point of the same name gets a new one. */
export type PointUid = Brand<string, "PointUid">;
/** A long-running operation: a lower-case UUID. */
export type OperationId = Brand<string, "OperationId">;

/** The comparable form of a resource id. ARM ids are case-insensitive. */
export function idKey(id: ResourceId): IdKey {
  return id.toLowerCase() as IdKey;
}

/** The QEMU node name of a disk's format node on an own VM: stable for the disk's life, within QEMU's 31 characters. */
export function diskNode(uid: DiskUid): string {
  return `d-${uid.replaceAll("-", "").slice(0, 12)}`;
}
