import type { Core } from "../core.ts";
import { isDamage } from "../format/object.ts";
import type { Pack } from "./packs.ts";

/** Pack indexes read at a time: about 55 KiB each. */
const PARALLEL = 8;

/**
 * Brings packs that the cache does not cover into the index, from their own indexes. A pack that cannot be read is
 * noted as damaged: writers then write its chunks anew.
 */
export async function indexPacks(core: Core): Promise<void> {
  const left = core.index.uncovered();
  const next = async (): Promise<void> => {
    for (let pack = left.pop(); pack; pack = left.pop()) await indexPack(core, pack);
  };
  await Promise.all(Array.from({ length: PARALLEL }, next));
}

async function indexPack(core: Core, pack: Pack): Promise<void> {
  try {
    core.index.add(pack, (await core.openPacks.load(pack)).index);
  } catch (error) {
    if (!isDamage(error)) throw error;
    await core.damage.report(pack, "all");
  }
}
