import assert from "node:assert/strict";
import { appendFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bytes, type VmUid } from "../base/index.ts";
import { encodeRecord, type JournalRecord, openJournal, parseJournal } from "./journal.ts";
import { EMPTY_LEDGER, fold, recordsOf } from "./ledger.ts";
import type { CaptureId, Incarnation } from "./protocol.ts";

const vm = "11111111-1111-4111-8111-111111111111" as VmUid;
const capture = "c1" as CaptureId;
const step = { name: "undo", execute: "blockdev-del", arguments: { "node-name": "n" } };

/** One of each kind, in an order in which they can happen. */
const RECORDS: readonly JournalRecord[] = [
  { t: "adopted", vm, qmpSocket: "/s/qmp", qgaSocket: null },
  {
    t: "open",
    open: {
      capture,
      vm,
      incarnation: "i" as Incarnation,
      giveUp: { before: [step], after: [step] },
      jobs: ["j"],
      silenceMs: 1,
    },
  },
  {
    t: "scratch",
    capture,
    path: "/c/0",
    scratch: { name: "0", kind: "fleece", virtualSizeBytes: bytes(1), reserveBytes: bytes(2) },
  },
  { t: "instant-begun", capture },
  { t: "freeze-begun", vm },
  { t: "thawed", vm },
  { t: "instant-failed", capture },
  { t: "instant-begun", capture },
  { t: "freeze-begun", vm },
  {
    t: "taken",
    capture,
    instant: { takenAt: "2026-01-01T00:00:00.000Z", transactionMs: 1, statusAtInstant: "running", freeze: null },
  },
  { t: "job-ended", capture, job: "j" },
  { t: "ending", capture, phase: "given-up", reason: "ümlaut\n" },
  { t: "undoing", capture, which: "after" },
  { t: "ended", capture },
  { t: "closing", capture, steps: [step] },
  { t: "quitting", vm, quitting: true },
  { t: "closed", capture },
  { t: "quitting", vm, quitting: false },
  { t: "released", vm },
];

describe("the guard's journal", () => {
  let dir: string;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "sp-journal-"));
  });
  after(() => rm(dir, { recursive: true }));

  async function read(path: string) {
    let seen: readonly JournalRecord[] = [];
    const { journal, damaged } = await openJournal(path, (records) => {
      seen = records;
      return records;
    });
    return { journal, damaged, seen };
  }

  test("what was appended is read again, in order", async () => {
    const path = join(dir, "sub/journal");
    const { journal } = await read(path);
    await Promise.all(RECORDS.map((record) => journal.append(record, () => {})));
    await journal.close();
    const again = await read(path);
    assert.deepEqual(again.seen, RECORDS);
    assert.equal(again.damaged, false);
    await again.journal.close();
  });

  test("a torn last line never happened, wherever it is torn", () => {
    const whole = RECORDS.slice(0, 3).map(encodeRecord).join("");
    const last = encodeRecord(RECORDS[3] as JournalRecord);
    for (let length = 0; length < last.length; length++) {
      const { records, damaged } = parseJournal(whole + last.slice(0, length));
      assert.deepEqual(records, RECORDS.slice(0, 3), `torn at ${length}`);
      assert.equal(damaged, false, `torn at ${length}`);
    }
    assert.equal(parseJournal(whole + last).records.length, 4);
  });

  test("one flipped bit anywhere loses that record and no other", () => {
    const lines = RECORDS.slice(0, 5).map(encodeRecord);
    for (const [at, line] of lines.entries())
      for (const position of [0, 5, 9, Math.floor(line.length / 2), line.length - 2]) {
        const flipped =
          line.slice(0, position) + String.fromCharCode(line.charCodeAt(position) ^ 1) + line.slice(position + 1);
        if (flipped.includes("\n", 0) && flipped.indexOf("\n") !== flipped.length - 1) continue;
        const { records } = parseJournal([...lines.slice(0, at), flipped, ...lines.slice(at + 1)].join(""));
        assert.deepEqual(
          records,
          RECORDS.slice(0, 5).filter((_, n) => n !== at),
          `record ${at}, character ${position}`,
        );
      }
  });

  test("a damaged middle is reported and a copy is kept", async () => {
    const path = join(dir, "damaged");
    const text = RECORDS.slice(0, 4).map(encodeRecord).join("").replace("adopted", "adapted");
    await writeFile(path, text);
    const { journal, damaged, seen } = await read(path);
    assert.equal(damaged, true);
    assert.equal(seen.length, 3);
    assert.equal(await readFile(`${path}.damaged`, "utf8"), text);
    await journal.close();
  });

  test("an append after a torn line stands on a line of its own", async () => {
    const path = join(dir, "torn");
    await writeFile(path, encodeRecord(RECORDS[0] as JournalRecord));
    await appendFile(path, "deadbeef {half");
    const { journal } = await read(path);
    await journal.append(RECORDS[1] as JournalRecord, () => {});
    await journal.close();
    assert.deepEqual(parseJournal(await readFile(path, "utf8")).records, RECORDS.slice(0, 2));
  });

  test("a compaction in the middle of appends loses none of them", async () => {
    const path = join(dir, "compact");
    const { journal } = await read(path);
    const counted: JournalRecord[] = [];
    const work: Promise<void>[] = [];
    for (const [at, record] of RECORDS.entries()) {
      work.push(journal.append(record, () => void counted.push(record)));
      if (at % 5 === 4) work.push(journal.replace(() => [...counted]));
    }
    await Promise.all(work);
    await journal.close();
    assert.deepEqual(parseJournal(await readFile(path, "utf8")).records, RECORDS);
  });

  test("after one failed write it refuses for good", async () => {
    const path = join(dir, "full");
    const { journal } = await read(path);
    await journal.close();
    await assert.rejects(
      journal.append(RECORDS[0] as JournalRecord, () => assert.fail("it does not count")),
      { code: "InternalError" },
    );
    await assert.rejects(
      journal.append(RECORDS[0] as JournalRecord, () => {}),
      { code: "InternalError" },
    );
  });
});

describe("the ledger", () => {
  test("after each record the compacted form folds to the same ledger", () => {
    let ledger = EMPTY_LEDGER;
    for (const record of RECORDS) {
      ledger = fold(ledger, record);
      assert.deepEqual(recordsOf(ledger).reduce(fold, EMPTY_LEDGER), ledger, `after ${record.t}`);
    }
    assert.deepEqual(ledger, { ...EMPTY_LEDGER, frozen: new Set([vm]) });
  });

  test("a repeated record changes nothing", () => {
    let ledger = EMPTY_LEDGER;
    for (const record of RECORDS) {
      ledger = fold(ledger, record);
      if (record.t !== "open") assert.deepEqual(fold(ledger, record), ledger, record.t);
    }
  });

  test("records of a capture that is closed are without effect", () => {
    assert.deepEqual(fold(EMPTY_LEDGER, { t: "ended", capture }), EMPTY_LEDGER);
  });
});
