import { type DomainKeys, domainKeys, type RepositoryKey } from "../keys/index.ts";
import { decodeObjectHeader, isDamage } from "./format/object.ts";
import { openSealed } from "./format/sealed.ts";
import type { Journal } from "./journal.ts";
import type { Storage } from "./storage/storage.ts";

const FOLDER = "domains/";

export function domainName(domain: string): string {
  return `${FOLDER}${domain}`;
}

/**
 * The key domains, unwrapped with the repository key. Where an object is damaged or gone, the copy in the journal is
 * taken: without its domain's key a point is lost.
 */
export async function readDomains(
  storage: Storage,
  key: RepositoryKey,
  journal: Journal,
  needed: string,
): Promise<ReadonlyMap<string, DomainKeys>> {
  const domains = new Map<string, DomainKeys>();
  let complete = true;
  for await (const { name } of storage.list(FOLDER)) {
    const bytes = await storage.read(name);
    const keys = bytes && unwrapped(key, bytes, name);
    if (keys) domains.set(keys.domain, keys);
    else complete = false;
  }
  if (complete && domains.has(needed)) return domains;
  for await (const { kind, payload } of journal.readJournal()) {
    if (kind !== "domain-key") continue;
    const { domain, object } = payload as { readonly domain: string; readonly object: string };
    const keys = unwrapped(key, Buffer.from(object, "base64"), domainName(domain));
    if (keys) domains.set(domain, keys);
  }
  return domains;
}

function unwrapped(key: RepositoryKey, bytes: Buffer, name: string): DomainKeys | null {
  const { repositoryId } = key;
  try {
    const { domain } = decodeObjectHeader(bytes, name, { kind: "domainKey", repositoryId });
    const { content } = openSealed(key.secret, bytes, domainName(domain), { kind: "domainKey", repositoryId });
    return domainKeys(domain, content);
  } catch (error) {
    if (!isDamage(error)) throw error;
    return null;
  }
}
