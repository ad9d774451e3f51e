import { bytes } from "../../base/index.ts";
import type { Core } from "../core.ts";
import type { CollectReport, ManifestHash, TreeRef } from "../types.ts";

export async function collect(
  core: Core,
  _roots: { readonly manifests: readonly ManifestHash[]; readonly trees: readonly TreeRef[] },
): Promise<CollectReport> {
  return { packsKept: core.packs.size, packsCondemned: 0, packsSwept: 0, freedBytes: bytes(0) };
}
