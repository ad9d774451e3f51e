import { StillpointError } from "../../base/index.ts";

/** Every object starts with the same 64 bytes, in clear. See docs/repository-format.md, "Object header". */
export const MAGIC = Buffer.from("STLPOINT", "latin1");
export const FORMAT_VERSION = 1;
export const OBJECT_HEADER_BYTES = 64;

export const OBJECT_KIND = {
  repository: 1,
  domainKey: 2,
  pack: 3,
  manifest: 4,
  journal: 5,
  checkpoint: 6,
  condemned: 7,
  damage: 8,
  epoch: 9,
} as const;
export type ObjectKind = keyof typeof OBJECT_KIND;

/** Objects of the repository itself belong to no key domain. */
export const NO_DOMAIN = "0".repeat(32);

export interface ObjectHeader {
  readonly kind: ObjectKind;
  /** The writer's epoch. */
  readonly epoch: number;
  readonly repositoryId: string;
  readonly domain: string;
}

/** What is wrong with an object, as an error that names it. */
export function damaged(object: string, problem: string, cause?: unknown): StillpointError {
  return new StillpointError("RepositoryDamaged", `${object}: ${problem}.`, {
    target: object,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Whether a read failed because of what is stored; anything else is the storage's trouble, not damage. */
export function isDamage(error: unknown): boolean {
  return error instanceof StillpointError && (error.code === "NotFound" || error.code === "RepositoryDamaged");
}

export function encodeObjectHeader(header: ObjectHeader): Buffer {
  const out = Buffer.alloc(OBJECT_HEADER_BYTES);
  MAGIC.copy(out, 0);
  out.writeUInt16LE(FORMAT_VERSION, 8);
  out.writeUInt8(OBJECT_KIND[header.kind], 10);
  out.writeUInt32LE(header.epoch, 12);
  out.write(header.repositoryId, 16, 16, "hex");
  out.write(header.domain, 32, 16, "hex");
  return out;
}

/** Checks magic, version, kind and repository of `object`. Throws RepositoryDamaged; RepositoryUnavailable
 * for the header of a repository of another version. */
export function decodeObjectHeader(
  bytes: Buffer,
  object: string,
  expected: { readonly kind: ObjectKind; readonly repositoryId: string | null },
): ObjectHeader {
  if (bytes.length < OBJECT_HEADER_BYTES || !bytes.subarray(0, 8).equals(MAGIC))
    throw damaged(object, "it does not start like a Stillpoint object");
  const version = bytes.readUInt16LE(8);
  if (version !== FORMAT_VERSION && expected.kind !== "repository")
    throw damaged(object, `it has format version ${version}, which its repository has not`);
  if (version !== FORMAT_VERSION)
    throw new StillpointError("RepositoryUnavailable", `${object} has format version ${version}.`, {
      target: object,
      remedy: `This program reads version ${FORMAT_VERSION}; use the one that wrote it.`,
    });
  if (bytes.readUInt8(10) !== OBJECT_KIND[expected.kind]) throw damaged(object, `it is not of kind ${expected.kind}`);
  const repositoryId = bytes.toString("hex", 16, 32);
  if (expected.repositoryId !== null && repositoryId !== expected.repositoryId)
    throw damaged(object, `it belongs to repository ${repositoryId}`);
  return {
    kind: expected.kind,
    epoch: bytes.readUInt32LE(12),
    repositoryId,
    domain: bytes.toString("hex", 32, 48),
  };
}
