import { createHash } from "node:crypto";
import type { JournalEntry, JournalKind, SealedEntry } from "../types.ts";
import { damaged, NO_DOMAIN } from "./object.ts";
import { openSealed, sealObject } from "./sealed.ts";

/** What the first entry names as its predecessor. */
export const JOURNAL_START = { number: 0, hash: "0".repeat(64) } as const;
const CLEAR_BYTES = 40;

export function journalName(number: number): string {
  return `journal/${String(number).padStart(12, "0")}`;
}

export interface EntryFacts {
  readonly kind: JournalKind;
  readonly payload: unknown;
  readonly at: string;
  readonly epoch: number;
}

/** Number and predecessor stand in clear, so that the chain can be followed without the key. */
export function sealEntry(
  secret: Uint8Array,
  repositoryId: string,
  salt: Buffer,
  head: { readonly number: number; readonly hash: string },
  entry: EntryFacts,
): SealedEntry {
  const number = head.number + 1;
  const clear = Buffer.alloc(CLEAR_BYTES);
  clear.writeBigUInt64LE(BigInt(number), 0);
  clear.write(head.hash, 8, 32, "hex");
  const bytes = sealObject(secret, salt, journalName(number), {
    header: { kind: "journal", epoch: entry.epoch, repositoryId, domain: NO_DOMAIN },
    clear,
    content: Buffer.from(JSON.stringify({ kind: entry.kind, at: entry.at, payload: entry.payload })),
  });
  return { number, hash: entryHash(bytes), bytes };
}

export function entryHash(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export function openEntry(
  secret: Uint8Array,
  repositoryId: string,
  number: number,
  bytes: Buffer,
): JournalEntry & { readonly hash: string } {
  const name = journalName(number);
  const { header, clear, content } = openSealed(secret, bytes, name, { kind: "journal", repositoryId });
  if (clear.length !== CLEAR_BYTES || Number(clear.readBigUInt64LE(0)) !== number)
    throw damaged(name, "it bears another number");
  const { kind, at, payload } = JSON.parse(content.toString("utf8"));
  return {
    number,
    previousHash: clear.toString("hex", 8, 40),
    kind,
    payload,
    at,
    epoch: header.epoch,
    hash: entryHash(bytes),
  };
}
