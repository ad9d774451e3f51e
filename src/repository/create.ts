import { mkdir, readdir, rename, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Clock, type Random, StillpointError, syncDirectory } from "../base/index.ts";
import {
  createKeyFile,
  DOMAIN_ID_BYTES,
  drawRepositoryKey,
  KEY_BYTES,
  keyId,
  type RepositoryKey,
  readKeyFile,
} from "../keys/index.ts";
import { domainName } from "./domains.ts";
import { JOURNAL_START } from "./format/journal.ts";
import { encodeRepositoryHeader, HEADER_NAMES, type RepositoryHeader } from "./format/repository-header.ts";
import { sealObject } from "./format/sealed.ts";
import { openJournal } from "./journal.ts";
import { LOCK_FILE } from "./storage/lock.ts";
import type { Storage } from "./storage/storage.ts";

/**
 * Writes a new repository into an empty storage. The header comes last: without it there is no repository, and what a
 * crash left can be begun anew with the same key.
 */
export async function writeNewRepository(
  storage: Storage,
  key: RepositoryKey,
  facts: { readonly region: string; readonly clock: Clock; readonly random: Random },
): Promise<void> {
  const { region, clock, random } = facts;
  const domain = random.bytes(DOMAIN_ID_BYTES).toString("hex");
  const wrapped = sealObject(key.secret, random.bytes(32), domainName(domain), {
    header: { kind: "domainKey", epoch: 0, repositoryId: key.repositoryId, domain },
    clear: Buffer.alloc(0),
    content: random.bytes(KEY_BYTES),
  });
  await storage.create(domainName(domain), wrapped);
  const header: RepositoryHeader = {
    repositoryId: key.repositoryId,
    region,
    createdAt: clock.now().toISOString(),
    keyId: keyId(key),
    platformDomain: domain,
    features: { ignore: [], readOnly: [], refuse: [] },
  };
  const journal = openJournal({ storage, key, epoch: 0, clock, random });
  const format = journal.sealEntry(JOURNAL_START, "format", { header });
  await journal.publishEntry(format);
  const payload = { domain, purpose: "platform", object: wrapped.toString("base64") };
  await journal.publishEntry(journal.sealEntry(format, "domain-key", payload));
  const bytes = encodeRepositoryHeader(header, key);
  for (const name of [...HEADER_NAMES].reverse()) await storage.create(name, bytes);
}

/** The key that a creation drew and has not finished with. It becomes the key file when the repository is whole. */
function pendingKeyFile(keyFile: string): string {
  return `${keyFile}.new`;
}

export type Found =
  /** `key` opens it, or null: there is no key file. */
  | { readonly state: "there"; readonly key: RepositoryKey | null }
  /** Nothing there, or the rest of a creation that was cut off; `key` is the one to create it with. */
  | { readonly state: "to-create"; readonly key: RepositoryKey };

/**
 * Decides whether the folder holds a repository or one may be created in it, without writing anything but a new key.
 * A new one needs both absent: folder (or empty folder) and key file.
 */
export async function findRepository(path: string, keyFile: string, random: Random): Promise<Found> {
  const names = await entries(path);
  const key = await readKeyFile(keyFile);
  const pending = await readKeyFile(pendingKeyFile(keyFile));
  if (names.some((name) => (HEADER_NAMES as readonly string[]).includes(name)))
    return { state: "there", key: key ?? pending };
  const unfinished = pending !== null && key === null && names.every((name) => CREATION_LEAVES.has(name));
  if (unfinished) return { state: "to-create", key: pending };
  if (names.length > 0)
    throw new StillpointError("RepositoryUnavailable", `${path} is neither a repository nor empty.`, {
      target: path,
      remedy: "Name the repository's folder, or an empty one for a new repository.",
    });
  if (key !== null)
    throw new StillpointError(
      "RepositoryUnavailable",
      `There is a key for repository ${key.repositoryId}, but no repository in ${path}.`,
      {
        target: path,
        remedy: `If it is on a file system that is not mounted, mount it; for a new repository move ${keyFile} away first.`,
      },
    );
  const drawn = drawRepositoryKey(random);
  await createKeyFile(pendingKeyFile(keyFile), drawn);
  return { state: "to-create", key: drawn };
}

/** What a creation makes before the header. */
const CREATION_LEAVES = new Set(["tmp", "domains", "journal", LOCK_FILE, `${LOCK_FILE}-journal`]);

async function entries(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw new StillpointError(
      "RepositoryUnavailable",
      `The repository ${path} cannot be read: ${(error as Error).message}.`,
      {
        target: path,
        cause: error,
      },
    );
  }
}

export async function makeRepositoryFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  await syncDirectory(dirname(path));
}

/** Empties what an interrupted creation left, so that the new one starts from nothing. */
export async function clearUnfinished(path: string): Promise<void> {
  for (const folder of ["domains", "journal"])
    for (const name of await entries(join(path, folder))) await unlink(join(path, folder, name));
}

/** The repository is whole: the pending key takes its place, durable when this returns. */
export async function adoptPendingKey(keyFile: string): Promise<void> {
  if ((await readKeyFile(keyFile)) !== null || (await readKeyFile(pendingKeyFile(keyFile))) === null) return;
  await rename(pendingKeyFile(keyFile), keyFile);
  await syncDirectory(dirname(keyFile));
}
