import type { DamageLog } from "../damage.ts";
import { isDamage } from "../format/object.ts";
import type { ChunkIndex } from "./chunk-index.ts";
import { isDamaged, type OpenPack, type OpenPacks, type Pack } from "./packs.ts";

export interface Located {
  readonly open: OpenPack;
  readonly slot: number;
}

/**
 * `write`: neither condemned packs nor damaged slots count. `sound`: damaged slots do not. `read`: what was noted as
 * damaged is tried when nothing else is left, for the note may stem from a disk's bad minute, and whoever reads
 * verifies every byte all the same.
 */
export type Use = "read" | "sound" | "write";

/** Packs asked before the index: chunks written together are wanted together. */
const RECENT_PACKS = 4;

/** Finds the pack that really holds an id: the index only proposes, the pack's own sealed index decides. */
export interface Locator {
  /** `tried`: places (see {@link placeOf}) that are not to be given again. */
  locate(id: Buffer, use: Use, tried?: ReadonlySet<string>): Promise<Located | null>;
  /** The same without waiting: `undefined` when more packs' indexes would have to be looked at. */
  peek(id: Buffer, use: Use): Located | null | undefined;
}

export function placeOf(located: Located): string {
  return `${located.open.pack.number}:${located.slot}`;
}

const NOTHING: ReadonlySet<string> = new Set();

export function makeLocator(index: ChunkIndex, openPacks: OpenPacks, damage: DamageLog): Locator {
  let recent: OpenPack[] = [];

  function inPack(open: OpenPack, id: Buffer, use: Use, tried: ReadonlySet<string>, evenDamaged = false) {
    if (use === "write" && open.pack.condemned) return null;
    const slot = open.slotOf(id);
    if (slot < 0 || (!evenDamaged && isDamaged(open.pack, slot))) return null;
    const located = { open, slot };
    return tried.size > 0 && tried.has(placeOf(located)) ? null : located;
  }

  function found(located: Located): Located {
    if (recent[0] !== located.open)
      recent = [located.open, ...recent.filter((other) => other !== located.open)].slice(0, RECENT_PACKS);
    return located;
  }

  function inRecent(id: Buffer, use: Use, tried: ReadonlySet<string>): Located | null {
    for (const open of recent) {
      const located = openPacks.peek(open.pack) === open ? inPack(open, id, use, tried) : null;
      if (located) return found(located);
    }
    return null;
  }

  function peek(id: Buffer, use: Use): Located | null | undefined {
    const near = inRecent(id, use, NOTHING);
    if (near) return near;
    let more = false;
    for (const pack of index.candidates(id)) {
      if (use === "write" && pack.condemned) continue;
      more ||= use === "read" && pack.damagedSlots !== null;
      if (pack.damagedSlots === "all") continue;
      const open = openPacks.peek(pack);
      const located = open && inPack(open, id, use, NOTHING);
      if (located) return found(located);
      more ||= open === null;
    }
    return more ? undefined : null;
  }

  async function locate(id: Buffer, use: Use, tried: ReadonlySet<string> = NOTHING): Promise<Located | null> {
    const near = inRecent(id, use, tried);
    if (near) return near;
    const candidates = index.candidates(id);
    for (const pack of candidates) {
      if ((use === "write" && pack.condemned) || pack.damagedSlots === "all") continue;
      const open = openPacks.peek(pack) ?? (await openOrReport(pack));
      // Asked again after the wait: the pack may have been condemned meanwhile.
      const located = open && inPack(open, id, use, tried);
      if (located) return found(located);
    }
    if (use !== "read") return null;
    for (const pack of candidates) {
      if (pack.damagedSlots === null) continue;
      const open = openPacks.peek(pack) ?? (await openOrReport(pack));
      const located = open && inPack(open, id, use, tried, true);
      if (located) return located;
    }
    return null;
  }

  async function openOrReport(pack: Pack): Promise<OpenPack | null> {
    try {
      return await openPacks.get(pack);
    } catch (error) {
      if (!isDamage(error)) throw error;
      await damage.report(pack, "all");
      return null;
    }
  }

  return { peek, locate };
}
