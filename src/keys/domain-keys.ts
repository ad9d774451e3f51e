import { deriveKey } from "./derive.ts";

export const DOMAIN_ID_BYTES = 16;

/** What a key domain's secret gives. Chunk and node ids of different domains never meet. */
export interface DomainKeys {
  /** 32 hex digits, in clear in every pack of the domain. */
  readonly domain: string;
  readonly chunkIdKey: Buffer;
  readonly nodeIdKey: Buffer;
  /** Each pack draws its id at random, so its key is used for that pack alone. */
  packKey(packId: Uint8Array): Buffer;
}

export function domainKeys(domain: string, secret: Uint8Array): DomainKeys {
  const none = Buffer.alloc(0);
  return {
    domain,
    chunkIdKey: deriveKey(secret, none, "chunk-id"),
    nodeIdKey: deriveKey(secret, none, "node-id"),
    packKey: (packId) => deriveKey(secret, packId, "pack"),
  };
}
