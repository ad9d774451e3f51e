import { type Clock, type Random, StillpointError } from "../base/index.ts";
import type { DomainKeys, RepositoryKey } from "../keys/index.ts";
import type { PinBoard } from "./collect/pins.ts";
import type { DamageLog } from "./damage.ts";
import { damaged } from "./format/object.ts";
import type { ChunkIndex } from "./index/chunk-index.ts";
import type { Locator } from "./index/locator.ts";
import type { OpenPacks, PackSet } from "./index/packs.ts";
import type { NodeReader } from "./read/nodes.ts";
import type { Storage } from "./storage/storage.ts";
import type { WorkerPool } from "./write/pool.ts";

/** What the parts of one open repository share. */
export interface Core {
  readonly storage: Storage;
  readonly key: RepositoryKey;
  readonly region: string;
  /** Counted up at every start that may write. */
  readonly epoch: number;
  readonly domains: ReadonlyMap<string, DomainKeys>;
  /** Key domain of new points. */
  readonly platformDomain: string;
  readonly packs: PackSet;
  readonly openPacks: OpenPacks;
  readonly index: ChunkIndex;
  readonly locator: Locator;
  readonly damage: DamageLog;
  readonly nodes: NodeReader;
  readonly pins: PinBoard;
  readonly pool: WorkerPool;
  /** For files that may vanish at any time. */
  readonly cacheDir: string;
  readonly clock: Clock;
  readonly random: Random;
  /** The feature that forbids writing, or null. */
  readonly readOnlyBecause: string | null;
}

export function domainOf(core: Core, domain: string): DomainKeys {
  const keys = core.domains.get(domain);
  if (!keys) throw damaged(`domain ${domain}`, "its key is not in the repository");
  return keys;
}

export function assertWritable(core: Core): void {
  if (core.readOnlyBecause !== null)
    throw new StillpointError(
      "RepositoryUnavailable",
      `The repository uses '${core.readOnlyBecause}', which this program can read but not write.`,
      { remedy: "Use a newer Stillpoint." },
    );
}
