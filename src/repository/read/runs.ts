import { type Bytes, bytes, CHUNK_BYTES } from "../../base/index.ts";
import type { DomainKeys } from "../../keys/index.ts";
import type { Core } from "../core.ts";
import { damaged, isDamage } from "../format/object.ts";
import { FRAME_KIND, type FrameRecord, packName, SLOT_BYTES } from "../format/pack.ts";
import { type Located, placeOf } from "../index/locator.ts";
import type { OpenPack } from "../index/packs.ts";
import { keyMaterial } from "../write/pool.ts";
import type { FrameToOpen, OpenFailure } from "../write/protocol.ts";

/** Chunks of one disk that follow one another. */
export interface Run {
  readonly firstChunk: number;
  readonly ids: readonly Buffer[];
}

interface FrameWanted {
  readonly open: OpenPack;
  readonly record: FrameRecord;
  readonly takes: { readonly slot: number; readonly to: number }[];
}

/**
 * The run's bytes, whole chunks, every one verified against its id. A frame that fails is read once more; then its
 * slots are noted as damaged and another copy is looked for. Throws RepositoryDamaged when there is none.
 */
export async function readRun(core: Core, keys: DomainKeys, run: Run): Promise<Uint8Array> {
  let again = new Set<string>();
  const tried = new Set<string>();
  while (true) {
    const wanted = await locateRun(core, run, tried);
    const { out, failed } = await fetchRun(core, keys, wanted, run.ids.length * CHUNK_BYTES);
    if (failed.length === 0) return out;
    const next = new Set<string>();
    for (const { frame, slots } of failed) {
      const name = frameName(frame);
      if (again.has(name)) await giveUp(core, frame, slots, tried);
      else next.add(name);
    }
    again = next;
  }
}

/** By name: a pack that is opened again has other objects for the same frames. */
function frameName({ open, record }: FrameWanted): string {
  return `${open.pack.id}:${record.ordinal}`;
}

async function giveUp(core: Core, frame: FrameWanted, slots: FailedFrame["slots"], tried: Set<string>): Promise<void> {
  const { open, record } = frame;
  const lost = (slots === "all" ? allSlots(record) : slots).map((slot) => record.firstSlot + slot);
  for (const slot of lost) tried.add(placeOf({ open, slot }));
  await core.damage.report(open.pack, slots === "all" ? "all" : lost);
}

async function locateRun(core: Core, run: Run, tried: ReadonlySet<string>): Promise<FrameWanted[]> {
  const wanted = new Map<FrameRecord, FrameWanted>();
  for (const [index, id] of run.ids.entries()) {
    const near = tried.size === 0 ? core.locator.peek(id, "read") : undefined;
    const located: Located | null = near ?? (await core.locator.locate(id, "read", tried));
    if (!located) {
      await core.damage.reportMissing();
      throw damaged(`chunk ${id.toString("hex")}`, "no readable pack holds it");
    }
    const record = located.open.frameOf(located.slot);
    const frame = wanted.get(record) ?? { open: located.open, record, takes: [] };
    frame.takes.push({ slot: located.slot - record.firstSlot, to: index * CHUNK_BYTES });
    wanted.set(record, frame);
  }
  return [...wanted.values()];
}

interface FailedFrame {
  readonly frame: FrameWanted;
  /** Within the frame; `all`: the pack itself is gone. */
  readonly slots: readonly number[] | "all";
}

async function fetchRun(
  core: Core,
  keys: DomainKeys,
  wanted: readonly FrameWanted[],
  outBytes: number,
): Promise<{ readonly out: Uint8Array; readonly failed: readonly FailedFrame[] }> {
  const fetched = await Promise.all(neighbours(wanted).map((group) => fetchGroup(core, group)));
  const failed = fetched.flatMap((result) => ("failed" in result ? result.failed : []));
  const frames = fetched.flatMap((result) => ("frames" in result ? result.frames : []));
  const request = frames.map(({ frame, sealed }) => frameToOpen(frame, sealed));
  const { out, failures } = await core.pool.open({ keys: keyMaterial(keys), outBytes, frames: request });
  const wrong = failures.map((failure: OpenFailure) => {
    const frame = frames[failure.frame]?.frame as FrameWanted;
    // A frame whose seal is broken is lost with all its slots, wanted now or not.
    const whole = failure.slots.length === frame.takes.length;
    return { frame, slots: whole ? allSlots(frame.record) : failure.slots };
  });
  return { out, failed: [...failed, ...wrong] };
}

function allSlots(record: FrameRecord): number[] {
  return Array.from({ length: record.slotCount }, (_, slot) => slot);
}

/** Frames that lie next to one another in a pack are fetched with one read. */
function neighbours(wanted: readonly FrameWanted[]): FrameWanted[][] {
  const groups: FrameWanted[][] = [];
  const ordered = [...wanted].sort(
    (a, b) => a.open.pack.number - b.open.pack.number || a.record.offset - b.record.offset,
  );
  for (const frame of ordered) {
    const last = groups.at(-1)?.at(-1);
    if (last && last.open === frame.open && last.record.offset + last.record.storedBytes === frame.record.offset)
      groups.at(-1)?.push(frame);
    else groups.push([frame]);
  }
  return groups;
}

async function fetchGroup(
  core: Core,
  group: readonly FrameWanted[],
): Promise<{ frames: { frame: FrameWanted; sealed: Buffer }[] } | { failed: FailedFrame[] }> {
  const first = group[0] as FrameWanted;
  const start = first.record.offset;
  const length = group.reduce((sum, frame) => sum + frame.record.storedBytes, 0);
  try {
    const all = await core.storage.readRange(packName(first.open.pack.id), start, length);
    const piece = ({ offset, storedBytes }: FrameRecord) => all.subarray(offset - start, offset - start + storedBytes);
    return { frames: group.map((frame) => ({ frame, sealed: piece(frame.record) })) };
  } catch (error) {
    if (!isDamage(error)) throw error;
    const gone = (error as { code?: string }).code === "NotFound";
    if (group.length > 1 && !gone) return eachAlone(core, group);
    return { failed: group.map((frame) => ({ frame, slots: gone ? "all" : allSlots(frame.record) })) };
  }
}

/** One unreadable sector must not take the neighbouring frames with it. */
async function eachAlone(core: Core, group: readonly FrameWanted[]) {
  const results = await Promise.all(group.map((frame) => fetchGroup(core, [frame])));
  const failed = results.flatMap((result) => ("failed" in result ? result.failed : []));
  if (failed.length > 0) return { failed };
  return { frames: results.flatMap((result) => ("frames" in result ? result.frames : [])) };
}

export function frameToOpen(frame: FrameWanted, sealed: Uint8Array): FrameToOpen {
  const { open, record, takes } = frame;
  return {
    sealed,
    packId: open.packId,
    packKey: open.packKey,
    kind: FRAME_KIND[record.kind],
    ordinal: record.ordinal,
    encoding: record.encoding,
    plainBytes: record.plainBytes,
    slots: open.index.slots.subarray(record.firstSlot * SLOT_BYTES, (record.firstSlot + record.slotCount) * SLOT_BYTES),
    takes,
  };
}

/** Where a run lies on a disk of `sizeBytes`: the last chunk may be cut. */
export function runRange(run: Run, sizeBytes: number): { readonly offset: Bytes; readonly length: Bytes } {
  const offset = run.firstChunk * CHUNK_BYTES;
  return { offset: bytes(offset), length: bytes(Math.min(run.ids.length * CHUNK_BYTES, sizeBytes - offset)) };
}
