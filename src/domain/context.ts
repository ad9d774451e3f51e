import type { Clock, OperationId, Probe, Random } from "../base/index.ts";
import type { DomainSettings } from "./commands.ts";
import type { JournalWriter } from "./journal/writer.ts";
import type { Operation } from "./model.ts";
import type { KeyedLock } from "./operations/locks.ts";
import type { Tasks } from "./operations/tasks.ts";
import type { Captures, Catalog, Images, Journal, Log, Machines, RepositoryReads, Restores } from "./ports.ts";

/** What the domain is given. */
export interface DomainDeps {
  readonly catalog: Catalog;
  readonly journal: Journal;
  readonly repository: RepositoryReads;
  readonly captures: Captures;
  readonly machines: Machines;
  readonly images: Images;
  readonly restores: Restores;
  readonly settings: DomainSettings;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Told of the steps of a commit; see Probe. */
  readonly probe?: Probe;
}

/** What every part of the domain shares. */
export interface Context extends DomainDeps {
  readonly writer: JournalWriter;
  readonly tasks: Tasks;
  /** One at a time per VM: its capture until that is released, the tidying of an earlier one, the VM's removal. */
  readonly vmLock: KeyedLock;
  /** Percent of operations under way; durable only at their end. */
  readonly progress: Map<OperationId, number>;
  /** Starts (or, after a restart, resumes) the work of an operation that is already in the catalog. */
  perform(operation: Operation): void;
}

/** Server time as it is stored and shown. */
export function timestamp(clock: Clock): string {
  return clock.now().toISOString();
}
