/** Holds the restored disks against what the guest had said before and after the point. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { LAYOUT } from "../../../setup/guest/index.ts";
import { StillpointError } from "../../base/index.ts";
import type { ApiClient } from "./client.ts";
import { inWriteOrder, lastNumbers, readSequence } from "./sequences.ts";
import type { QuickstartSite } from "./site.ts";

export interface Proof {
  /** Last numbers of the point on the three disks. */
  readonly last: readonly number[];
}

/**
 * Reads the sequence files of the restored disks (their VM must be off). What the first boot wrote is what the point
 * held: it must be gapless, in write order over the disks, and between what the guest had confirmed before the point was
 * asked for and what it had written when the point was taken.
 */
export async function proveSequences(
  client: ApiClient,
  site: QuickstartSite,
  disks: readonly string[],
  bounds: { readonly confirmedBefore: number; readonly writtenAfter: number },
): Promise<Proof> {
  const sequences = [];
  for (const [index, disk] of disks.entries()) {
    const image = await imageOf(client, site, disk);
    const part = index === 0 ? { offsetBytes: LAYOUT.rootOffsetBytes, sizeBytes: LAYOUT.rootBytes } : {};
    sequences.push(await readSequence({ ...image, ...part }));
  }
  const boot = sequences[0]?.[0]?.boot;
  if (!boot) throw new StillpointError("InternalError", "The restored OS disk holds an empty sequence file.");
  const last = lastNumbers(sequences, boot);
  const wrong = (what: string) =>
    new StillpointError("InternalError", `The restored disks end at ${last.join(", ")}: ${what}.`);
  if (!inWriteOrder(last)) throw wrong("no single instant can have left that");
  if (Math.min(...last) < bounds.confirmedBefore)
    throw wrong(`the guest had confirmed ${bounds.confirmedBefore} before the point`);
  if (Math.max(...last) > bounds.writtenAfter + 1)
    throw wrong(`the guest had only written ${bounds.writtenAfter} after the point`);
  return { last };
}

/** The file of a restored disk: it bears the disk's unique id. */
async function imageOf(client: ApiClient, site: QuickstartSite, disk: string) {
  const { properties } = await client.get<{ properties: { uniqueId: string } }>(disk);
  const file = (await readdir(site.poolDir)).find((name) => name.startsWith(properties.uniqueId));
  if (!file) throw new StillpointError("NotFound", `${site.poolDir} holds no image of ${disk}.`);
  return { path: join(site.poolDir, file), format: file.endsWith(".raw") ? ("raw" as const) : ("qcow2" as const) };
}
