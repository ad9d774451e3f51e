import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, systemRandom } from "../base/index.ts";
import { drawRepositoryKey } from "../keys/index.ts";
import { JOURNAL_START, journalName } from "./format/journal.ts";
import { openJournal } from "./journal.ts";
import { memoryStorage } from "./storage/memory.ts";
import type { JournalHead } from "./types.ts";

test("every thousandth entry leaves a checkpoint: a start reads only what came after it, and checks that it fits", async () => {
  const storage = memoryStorage();
  const key = drawRepositoryKey(systemRandom);
  const reads: string[] = [];
  const watched = {
    ...storage,
    read: (name: string) => {
      reads.push(name);
      return storage.read(name);
    },
  };
  const journal = openJournal({ storage: watched, key, epoch: 1, clock: systemClock, random: systemRandom });
  let head: JournalHead = JOURNAL_START;
  for (let number = 1; number <= 2003; number++) {
    const entry = journal.sealEntry(head, "commit", { number });
    await journal.publishEntry(entry);
    head = entry;
  }
  assert.deepEqual(
    [...storage.objects.keys()].filter((name) => name.startsWith("checkpoints/")),
    ["checkpoints/000000001000", "checkpoints/000000002000"],
  );
  reads.length = 0;
  assert.deepEqual(await journal.journalHead(), { number: 2003, hash: head.hash });
  assert.deepEqual(reads, ["checkpoints/000000002000", ...[2000, 2001, 2002, 2003].map(journalName)]);
  let count = 0;
  for await (const entry of journal.readJournal()) assert.equal(entry.number, ++count);
  assert.equal(count, 2003);
  storage.objects.delete("checkpoints/000000002000");
  assert.equal((await journal.journalHead()).number, 2003);
  // An entry exchanged for another one of the same place does not pass for it.
  const other = journal.sealEntry(JOURNAL_START, "commit", {});
  storage.objects.set(journalName(1000), Buffer.from(other.bytes));
  await assert.rejects(journal.journalHead(), { code: "RepositoryDamaged", target: journalName(1000) });
});

test("an entry is bound to its number, its predecessor and its repository", async () => {
  const storage = memoryStorage();
  const key = drawRepositoryKey(systemRandom);
  const open = (own = key) => openJournal({ storage, key: own, epoch: 1, clock: systemClock, random: systemRandom });
  const journal = open();
  const one = journal.sealEntry(JOURNAL_START, "commit", { n: 1 });
  await journal.publishEntry(one);
  await assert.rejects(journal.publishEntry({ ...one, hash: "0".repeat(64) }), { code: "RepositoryDamaged" });
  const stranger = open(drawRepositoryKey(systemRandom)).sealEntry(one, "commit", { n: 2 });
  storage.objects.set(journalName(2), Buffer.from(stranger.bytes));
  await assert.rejects(journal.journalHead(), { code: "RepositoryDamaged", message: /belongs to repository/ });
  storage.objects.set(journalName(2), Buffer.from(one.bytes));
  await assert.rejects(journal.journalHead(), { code: "RepositoryDamaged", message: /seal does not hold/ });
  for (const at of [100, 108, 120]) {
    const bent = Buffer.from(one.bytes);
    bent[at] = (bent[at] as number) ^ 1;
    storage.objects.set(journalName(1), bent);
    await assert.rejects(journal.entryAt(1), { code: "RepositoryDamaged" }, `byte ${at} of the clear part`);
  }
});
