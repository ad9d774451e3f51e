import { createHash } from "node:crypto";
import type { ManifestHash, PointManifest } from "../types.ts";
import { damaged, NO_DOMAIN } from "./object.ts";
import { openSealed, sealObject } from "./sealed.ts";

export function manifestName(hash: string): string {
  return `manifests/${hash}`;
}

/** A manifest is named by its stored bytes, so its name cannot be bound inside them. */
export function sealManifest(
  secret: Uint8Array,
  repositoryId: string,
  epoch: number,
  salt: Buffer,
  manifest: PointManifest,
): { readonly hash: ManifestHash; readonly bytes: Buffer } {
  const bytes = sealObject(secret, salt, "", {
    header: { kind: "manifest", epoch, repositoryId, domain: NO_DOMAIN },
    clear: Buffer.alloc(0),
    content: Buffer.from(JSON.stringify(manifest)),
  });
  return { hash: createHash("sha256").update(bytes).digest("hex") as ManifestHash, bytes };
}

export function openManifest(
  secret: Uint8Array,
  repositoryId: string,
  hash: ManifestHash,
  bytes: Buffer,
): PointManifest {
  const object = manifestName(hash);
  if (createHash("sha256").update(bytes).digest("hex") !== hash)
    throw damaged(object, "its bytes are not the named ones");
  const { content } = openSealed(secret, bytes, "", { kind: "manifest", repositoryId, object });
  return JSON.parse(content.toString("utf8")) as PointManifest;
}
