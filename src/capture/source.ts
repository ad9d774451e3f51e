import type { Bytes, Clock, Random } from "../base/index.ts";
import type { NbdClient } from "../nbd/index.ts";

export interface CopySource {
  readonly nbd: NbdClient;
  readonly sizeBytes: Bytes;
  readonly kind: "full" | "incremental" | "full-compared";
  /** The frozen bitmap that names what changed since the anchor; needed for an increment. */
  readonly bitmap: string | null;
}

export interface CopyDeps {
  readonly random: Random;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Bytes done (read, or known to be zero or unchanged) out of the disk's size. */
  readonly progress: (doneBytes: number) => void;
}
