import type { VmUid } from "../base/index.ts";
import type { Book } from "./book.ts";
import type { Announce, GuardOptions } from "./context.ts";
import type { CaptureEntry } from "./ledger.ts";
import type { Machines } from "./machines.ts";
import type { NbdServers } from "./nbd-server.ts";
import type { CaptureState } from "./protocol.ts";
import type { Repeated } from "./repeat.ts";

/** What the parts of a capture share. */
export interface CaptureTools {
  readonly options: GuardOptions;
  readonly book: Book;
  readonly machines: Machines;
  readonly nbd: NbdServers;
  readonly announce: Announce;
  readonly repeated: Repeated;
}

/** Whether something of the capture may still stand in QEMU, to be guarded and undone. */
export function isActive(entry: CaptureEntry): boolean {
  return entry.closing === null && (entry.phase === "open" || entry.phase === "instant" || entry.phase === "taken");
}

/** Whether QEMU must stay for it. */
export function needsQemu(entry: CaptureEntry): boolean {
  return entry.phase !== "lost" && !(entry.phase === "given-up" && entry.undone);
}

export function capturesOf(book: Book, vm: VmUid): readonly CaptureEntry[] {
  return [...book.ledger().captures.values()].filter((entry) => entry.open.vm === vm);
}

export function captureState(tools: Pick<CaptureTools, "nbd">, entry: CaptureEntry): CaptureState {
  return {
    capture: entry.open.capture,
    vm: entry.open.vm,
    incarnation: entry.open.incarnation,
    phase: entry.phase,
    reason: entry.reason,
    instant: entry.instant,
    scratch: Object.fromEntries([...entry.scratch].map(([name, { path }]) => [name, path])),
    nbdSocket: tools.nbd.socketOf(entry.open.vm),
  };
}
