import type { Core } from "../core.ts";
import { ID_BYTES } from "../format/node.ts";
import { isDamage } from "../format/object.ts";
import { FRAME_KIND, type FrameRecord, packName, SLOT_BYTES } from "../format/pack.ts";
import { type OpenPack, type Pack, slotId } from "../index/packs.ts";
import { slotsOf } from "../read/nodes.ts";
import { keyMaterial } from "../write/pool.ts";
import type { OpenResult } from "../write/protocol.ts";

/** Plaintext of the frames checked in one job. */
const GROUP_BYTES = 1024 * 1024;

export interface PackFindings {
  /** An id whose bytes are there and right. */
  good(id: Buffer): void;
  /** A pack or one of its frames; `ids`: what it held, as far as that is known. */
  damaged(object: string, problem: string, ids: readonly Buffer[]): void;
}

/** Reads every byte of a pack and compares every object with its id. What is wrong is noted in the repository. */
export async function verifyPack(core: Core, pack: Pack, findings: PackFindings): Promise<void> {
  const name = packName(pack.id);
  let open: OpenPack;
  try {
    open = await core.openPacks.load(pack).catch(() => core.openPacks.load(pack));
  } catch (error) {
    if (!isDamage(error)) throw error;
    await core.damage.report(pack, "all");
    findings.damaged(name, (error as Error).message, []);
    return;
  }
  for (const group of frameGroups(open.index.frames)) {
    const bad = new Map<FrameRecord, string>();
    // Only what fails twice is damaged: the second reading comes from the disk again.
    for (const frame of (await failing(core, open, group)).keys())
      for (const [again, problem] of await failing(core, open, [frame])) bad.set(again, problem);
    for (const frame of group) {
      const problem = bad.get(frame);
      const ids = slotsOf(frame).map((slot) => slotId(open.index, slot));
      if (problem === undefined) for (const id of ids) findings.good(id);
      else {
        await core.damage.report(pack, slotsOf(frame));
        findings.damaged(`${name}#${frame.ordinal}`, problem, ids);
      }
    }
  }
}

function* frameGroups(frames: readonly FrameRecord[]): Iterable<FrameRecord[]> {
  let group: FrameRecord[] = [];
  let size = 0;
  for (const frame of frames) {
    group.push(frame);
    size += frame.plainBytes;
    if (size < GROUP_BYTES) continue;
    yield group;
    group = [];
    size = 0;
  }
  if (group.length > 0) yield group;
}

async function failing(core: Core, open: OpenPack, group: readonly FrameRecord[]): Promise<Map<FrameRecord, string>> {
  const bad = new Map<FrameRecord, string>();
  const read: { frame: FrameRecord; sealed: Buffer }[] = [];
  for (const frame of group) {
    try {
      const sealed = await core.storage.readRange(packName(open.pack.id), frame.offset, frame.storedBytes);
      read.push({ frame, sealed });
    } catch (error) {
      if (!isDamage(error)) throw error;
      bad.set(frame, (error as Error).message);
    }
  }
  const result: OpenResult = await core.pool.open({
    keys: keyMaterial(open.keys),
    outBytes: 0,
    frames: read.map(({ frame, sealed }) => ({
      sealed,
      packId: open.packId,
      packKey: open.packKey,
      kind: FRAME_KIND[frame.kind],
      ordinal: frame.ordinal,
      encoding: frame.encoding,
      plainBytes: frame.plainBytes,
      slots: open.index.slots.subarray(frame.firstSlot * SLOT_BYTES, (frame.firstSlot + frame.slotCount) * SLOT_BYTES),
      takes: Array.from({ length: frame.slotCount }, (_, slot) => ({ slot, to: -1 })),
    })),
  });
  for (const failure of result.failures) {
    const frame = read[failure.frame]?.frame;
    if (frame) bad.set(frame, failure.problem);
  }
  return bad;
}

/** Enough of an id to name it in a table. */
export function idName(id: Buffer): string {
  return id.toString("latin1", 0, ID_BYTES);
}
