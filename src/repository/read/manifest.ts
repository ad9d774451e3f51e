import type { Core } from "../core.ts";
import { manifestName, openManifest } from "../format/manifest.ts";
import { damaged } from "../format/object.ts";
import type { ManifestHash, PointManifest } from "../types.ts";

export async function readManifest(core: Core, hash: ManifestHash): Promise<PointManifest> {
  const name = manifestName(hash);
  const bytes = await core.storage.read(name);
  if (!bytes) throw damaged(name, "it is missing");
  return openManifest(core.key.secret, core.key.repositoryId, hash, bytes);
}
