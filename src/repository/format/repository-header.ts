import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { CHUNK_BYTES, StillpointError } from "../../base/index.ts";
import { deriveKey, keyId, type RepositoryKey } from "../../keys/index.ts";
import { FAN_OUT } from "./node.ts";
import {
  damaged,
  decodeObjectHeader,
  encodeObjectHeader,
  FORMAT_VERSION,
  NO_DOMAIN,
  OBJECT_HEADER_BYTES,
} from "./object.ts";

/** In clear and authenticated: what must be known before the key is. Stored twice: without it nothing opens. */
export const HEADER_NAMES = ["repository", "repository.copy"] as const;

/** Features of the format by what a program must do that does not know one of them. */
export interface FeatureFlags {
  readonly ignore: readonly string[];
  readonly readOnly: readonly string[];
  readonly refuse: readonly string[];
}

export interface RepositoryHeader {
  readonly repositoryId: string;
  readonly region: string;
  readonly createdAt: string;
  readonly keyId: string;
  readonly platformDomain: string;
  readonly features: FeatureFlags;
}

/** Features this program knows: none beyond version 1 yet. */
const KNOWN_FEATURES: ReadonlySet<string> = new Set();
const HASH_BYTES = 32;

export function encodeRepositoryHeader(header: RepositoryHeader, key: RepositoryKey): Buffer {
  const json = Buffer.from(
    JSON.stringify({ format: FORMAT_VERSION, chunkBytes: CHUNK_BYTES, fanOut: FAN_OUT, ...header }),
  );
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  const object = encodeObjectHeader({
    kind: "repository",
    epoch: 0,
    repositoryId: header.repositoryId,
    domain: NO_DOMAIN,
  });
  const front = Buffer.concat([object, length, json]);
  const signed = Buffer.concat([front, signature(front, key)]);
  return Buffer.concat([signed, createHash("sha256").update(signed).digest()]);
}

function signature(front: Buffer, key: RepositoryKey): Buffer {
  return createHmac("sha256", deriveKey(key.secret, Buffer.alloc(0), "header"))
    .update(front)
    .digest();
}

/** What the header says, checked against accidents only: who wrote it is known after {@link authenticateHeader}. */
export function decodeRepositoryHeader(bytes: Buffer, object: string): RepositoryHeader {
  const body = bytes.length - HASH_BYTES;
  if (body < OBJECT_HEADER_BYTES + 4 + HASH_BYTES) throw damaged(object, "it is cut short");
  if (!createHash("sha256").update(bytes.subarray(0, body)).digest().equals(bytes.subarray(body)))
    throw damaged(object, "its checksum does not match");
  const { repositoryId } = decodeObjectHeader(bytes, object, { kind: "repository", repositoryId: null });
  const at = OBJECT_HEADER_BYTES + 4;
  const header = JSON.parse(bytes.toString("utf8", at, at + bytes.readUInt32LE(OBJECT_HEADER_BYTES)));
  if (header.repositoryId !== repositoryId) throw damaged(object, "it contradicts itself");
  return header as RepositoryHeader;
}

/** Throws KeyMismatch when `key` is another repository's or another secret, RepositoryDamaged when it was forged. */
export function authenticateHeader(bytes: Buffer, object: string, header: RepositoryHeader, key: RepositoryKey): void {
  if (header.repositoryId !== key.repositoryId)
    throw new StillpointError(
      "KeyMismatch",
      `The key is of repository ${key.repositoryId}, but this is repository ${header.repositoryId}.`,
      { target: object, remedy: "Name the key file that was made with this repository." },
    );
  if (header.keyId !== keyId(key))
    throw new StillpointError("KeyMismatch", `The key does not open repository ${header.repositoryId}.`, {
      target: object,
      remedy: "Name the key file that was made with this repository.",
    });
  const body = bytes.length - 2 * HASH_BYTES;
  if (!timingSafeEqual(signature(bytes.subarray(0, body), key), bytes.subarray(body, body + HASH_BYTES)))
    throw damaged(object, "it was not written with this key");
}

/** Null when writing is allowed; the feature that forbids it otherwise. Throws when even reading is not. */
export function readOnlyBecause(features: FeatureFlags): string | null {
  const unknown = (names: readonly string[]) => names.find((name) => !KNOWN_FEATURES.has(name));
  const refused = unknown(features.refuse);
  if (refused !== undefined)
    throw new StillpointError("RepositoryUnavailable", `The repository uses '${refused}', which is not known here.`, {
      remedy: "Use a newer Stillpoint.",
    });
  return unknown(features.readOnly) ?? null;
}
