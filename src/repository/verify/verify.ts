import { bytes } from "../../base/index.ts";
import type { Core } from "../core.ts";
import type { Journal } from "../journal.ts";
import type { ManifestHash, VerifyReport } from "../types.ts";

export async function verify(
  core: Core,
  _journal: Journal,
  _roots: { readonly points: readonly { readonly pointId: string; readonly manifest: ManifestHash }[] },
  _progress?: (objectsDone: number, objectsTotal: number) => void,
): Promise<VerifyReport> {
  return { objectsRead: core.packs.size, bytesRead: bytes(0), damage: [] };
}
