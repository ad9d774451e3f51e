import { type Random, StillpointError } from "../base/index.ts";
import type { RepositoryKey } from "../keys/index.ts";
import { NO_DOMAIN } from "./format/object.ts";
import { openSealed, sealObject } from "./format/sealed.ts";
import type { Pack, PackSet } from "./index/packs.ts";
import type { Storage } from "./storage/storage.ts";

const FOLDER = "damage/";

interface DamageNote {
  /** Null: ids that no pack holds were asked for. */
  readonly pack: string | null;
  readonly slots: readonly number[] | "all";
}

/**
 * What is known to be unreadable. Kept in the repository itself, so that a damaged id stays unknown to writers after a
 * restart and without the cache: writing the same bytes again then heals every point that needs them.
 */
export interface DamageLog {
  /** Whether there is any damage at all: a disk without it needs no look. */
  readonly any: boolean;
  /** Takes effect at once; noted in the repository when it resolves. */
  report(pack: Pack, slots: readonly number[] | "all"): Promise<void>;
  /** An id that should be there is in no pack. */
  reportMissing(): Promise<void>;
  /** The packs are gone: what was noted about them is of no more use. */
  forget(packs: ReadonlySet<string>): Promise<void>;
}

export async function openDamageLog(
  storage: Storage,
  key: RepositoryKey,
  epoch: number,
  random: Random,
  packs: PackSet,
): Promise<DamageLog> {
  const noted = new Map<string, DamageNote>();
  for await (const { name } of storage.list(FOLDER)) {
    const bytes = await storage.read(name);
    if (!bytes) continue;
    const note = readNote(key, name, bytes);
    const pack = note.pack === null ? undefined : packs.get(note.pack);
    if (pack) mark(pack, note.slots);
    noted.set(name, note);
  }

  async function write(note: DamageNote): Promise<void> {
    const name = `${FOLDER}${random.bytes(16).toString("hex")}`;
    noted.set(name, note);
    const header = { kind: "damage", epoch, repositoryId: key.repositoryId, domain: NO_DOMAIN } as const;
    const content = Buffer.from(JSON.stringify(note));
    await storage.create(
      name,
      sealObject(key.secret, random.bytes(32), name, { header, clear: Buffer.alloc(0), content }),
    );
  }

  return {
    get any() {
      return noted.size > 0;
    },
    report: async (pack, slots) => {
      if (packs.get(pack.id) !== pack) return; // swept while it was being read: nothing needs it
      if (mark(pack, slots)) await write({ pack: pack.id, slots });
    },
    reportMissing: async () => {
      if (![...noted.values()].some((note) => note.pack === null)) await write({ pack: null, slots: "all" });
    },
    forget: async (gone) => {
      for (const [name, note] of [...noted]) {
        if (note.pack === null || !gone.has(note.pack)) continue;
        await storage.delete(name);
        noted.delete(name);
      }
    },
  };
}

/** A damaged note still says that there is damage. */
function readNote(key: RepositoryKey, name: string, bytes: Buffer): DamageNote {
  try {
    const { content } = openSealed(key.secret, bytes, name, { kind: "damage", repositoryId: key.repositoryId });
    return JSON.parse(content.toString("utf8")) as DamageNote;
  } catch (error) {
    if (!(error instanceof StillpointError)) throw error;
    return { pack: null, slots: "all" };
  }
}

/** Whether the pack's state changed by it. */
function mark(pack: Pack, slots: readonly number[] | "all"): boolean {
  if (pack.damagedSlots === "all") return false;
  if (slots === "all") {
    pack.damagedSlots = "all";
    return true;
  }
  const known = pack.damagedSlots ?? new Set<number>();
  const before = known.size;
  for (const slot of slots) known.add(slot);
  pack.damagedSlots = known;
  return known.size > before;
}
