import { StillpointError } from "../../base/index.ts";
import type { Core } from "../core.ts";
import { journalName } from "../format/journal.ts";
import { manifestName, openManifest } from "../format/manifest.ts";
import { damaged, isDamage, type ObjectKind } from "../format/object.ts";
import { authenticateHeader, decodeRepositoryHeader, HEADER_NAMES } from "../format/repository-header.ts";
import { openSealed } from "../format/sealed.ts";
import type { Journal } from "../journal.ts";
import type { ManifestHash } from "../types.ts";

export interface Broken {
  readonly object: string;
  readonly problem: string;
}

/** Sealed objects that are known by their name alone, by folder. */
const SEALED_FOLDERS: readonly (readonly [string, ObjectKind])[] = [
  ["domains/", "domainKey"],
  ["checkpoints/", "checkpoint"],
  ["condemned/", "condemned"],
  ["damage/", "damage"],
  ["epochs/", "epoch"],
];

/** Everything but the packs: header copies, keys, journal with its chain, manifests, notes. */
export async function verifySmallObjects(
  core: Core,
  journal: Journal,
): Promise<{ readonly broken: Broken[]; readonly objects: number; readonly bytes: number }> {
  const { key, storage } = core;
  const { repositoryId } = key;
  const broken: Broken[] = [];
  let objects = 0;
  let bytes = 0;

  async function check(name: string, open: (content: Buffer) => void): Promise<void> {
    objects++;
    try {
      const content = await storage.read(name);
      if (!content) throw damaged(name, "it is missing");
      bytes += content.length;
      open(content);
    } catch (error) {
      // A flipped bit can make the header look like another version's or another key's.
      if (!isDamage(error) && !(error instanceof StillpointError)) throw error;
      broken.push({ object: name, problem: (error as Error).message });
    }
  }

  for (const name of HEADER_NAMES)
    await check(name, (content) => authenticateHeader(content, name, decodeRepositoryHeader(content, name), key));
  for (const [folder, kind] of SEALED_FOLDERS)
    for await (const { name } of storage.list(folder))
      await check(name, (content) => openSealed(key.secret, content, name, { kind, repositoryId }));
  for await (const { name } of storage.list("manifests/")) {
    const hash = name.slice("manifests/".length) as ManifestHash;
    await check(manifestName(hash), (content) => openManifest(key.secret, repositoryId, hash, content));
  }
  const chain = await verifyChain(journal);
  return { broken: [...broken, ...chain.broken], objects: objects + chain.entries, bytes };
}

async function verifyChain(journal: Journal): Promise<{ readonly broken: Broken[]; readonly entries: number }> {
  const broken: Broken[] = [];
  const entries = await journal.lastNumber();
  let previous: string | null = "0".repeat(64);
  for (let number = 1; number <= entries; number++) {
    try {
      const entry = await journal.entryAt(number);
      if (previous !== null && entry.previousHash !== previous)
        broken.push({ object: journalName(number), problem: "it does not follow the entry before it" });
      previous = entry.hash;
    } catch (error) {
      if (!isDamage(error)) throw error;
      broken.push({ object: journalName(number), problem: (error as Error).message });
      previous = null;
    }
  }
  return { broken, entries };
}
