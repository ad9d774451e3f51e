import type { DamageLog } from "../damage.ts";
import type { ChunkIndex } from "./chunk-index.ts";
import { isDamaged, type OpenPack, type OpenPacks, type Pack } from "./packs.ts";

export interface Located {
  readonly open: OpenPack;
  readonly slot: number;
}

/** Packs asked before the index: chunks written together are wanted together. */
const RECENT_PACKS = 4;

/**
 * Finds the pack that really holds an id: the index only proposes, the pack's own sealed index decides. For writing,
 * a condemned pack and a damaged slot never count. For reading, what was noted as damaged is tried when nothing else
 * is left: the note may stem from a disk's bad minute, and whoever reads verifies every byte all the same.
 */
export interface Locator {
  locate(id: Buffer, use: "read" | "write"): Promise<Located | null>;
  /** The same without waiting: `undefined` when a pack's index would have to be fetched first. */
  peek(id: Buffer, use: "read" | "write"): Located | null | undefined;
}

export function makeLocator(index: ChunkIndex, openPacks: OpenPacks, damage: DamageLog): Locator {
  let recent: OpenPack[] = [];

  function usable(pack: Pack, use: "read" | "write"): boolean {
    return use === "read" || !pack.condemned;
  }

  function inPack(open: OpenPack, id: Buffer, use: "read" | "write", evenDamaged = false): Located | null {
    if (!usable(open.pack, use)) return null;
    const slot = open.slotOf(id);
    return slot >= 0 && (evenDamaged || !isDamaged(open.pack, slot)) ? { open, slot } : null;
  }

  async function inDamaged(id: Buffer): Promise<Located | null> {
    for (const pack of index.candidates(id)) {
      if (pack.damagedSlots === null) continue;
      const open = openPacks.peek(pack) ?? (await openOrReport(pack));
      const located = open && inPack(open, id, "read", true);
      if (located) return located;
    }
    return null;
  }

  function found(located: Located): Located {
    if (recent[0] !== located.open)
      recent = [located.open, ...recent.filter((other) => other !== located.open)].slice(0, RECENT_PACKS);
    return located;
  }

  function inRecent(id: Buffer, use: "read" | "write"): Located | null {
    for (const open of recent) {
      const located = openPacks.peek(open.pack) === open ? inPack(open, id, use) : null;
      if (located) return found(located);
    }
    return null;
  }

  return {
    peek: (id, use) => {
      const near = inRecent(id, use);
      if (near) return near;
      let unknown = false;
      for (const pack of index.candidates(id)) {
        if (use === "read" && pack.damagedSlots === "all") unknown = true;
        if (!usable(pack, use) || pack.damagedSlots === "all") continue;
        const open = openPacks.peek(pack);
        const located = open && inPack(open, id, use);
        if (located) return found(located);
        unknown ||= open === null || (use === "read" && pack.damagedSlots !== null);
      }
      return unknown ? undefined : null;
    },
    locate: async (id, use) => {
      const near = inRecent(id, use);
      if (near) return near;
      for (const pack of index.candidates(id)) {
        if (!usable(pack, use) || pack.damagedSlots === "all") continue;
        const open = openPacks.peek(pack) ?? (await openOrReport(pack));
        // Asked again after the wait: the pack may have been condemned meanwhile.
        const located = open && inPack(open, id, use);
        if (located) return found(located);
      }
      return use === "read" ? inDamaged(id) : null;
    },
  };

  async function openOrReport(pack: Pack): Promise<OpenPack | null> {
    try {
      return await openPacks.get(pack);
    } catch (error) {
      const code = (error as { code?: string }).code;
      if (code !== "RepositoryDamaged" && code !== "NotFound") throw error;
      await damage.report(pack, "all");
      return null;
    }
  }
}
