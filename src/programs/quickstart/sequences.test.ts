import assert from "node:assert/strict";
import { test } from "node:test";
import { inWriteOrder, lastNumbers, parseSequence } from "./sequences.ts";

const line = (number: number, boot: string, at = 1_790_000_000_000 + number) =>
  `${String(number).padStart(12, "0")} ${boot} ${at}\n`;
const content = (...lines: string[]) => Buffer.from(lines.join(""));

test("a sequence is told boot by boot, and half a line at the end is no line", () => {
  const boots = parseSequence(content(line(1, "aaaaaaaa"), line(2, "aaaaaaaa"), line(3, "bbbbbbbb"), "0000"), "x");
  assert.deepEqual(boots, [
    { boot: "aaaaaaaa", first: 1, last: 2, lastAtMs: 1_790_000_000_002 },
    { boot: "bbbbbbbb", first: 3, last: 3, lastAtMs: 1_790_000_000_003 },
  ]);
  assert.deepEqual(lastNumbers([boots, boots.slice(0, 1), []]), [3, 2, 0]);
  assert.deepEqual(lastNumbers([boots, boots.slice(0, 1), []], "aaaaaaaa"), [2, 2, 0]);
});

test("a missing, doubled or damaged line is an error that names it", () => {
  assert.throws(() => parseSequence(content(line(1, "aaaaaaaa"), line(3, "aaaaaaaa")), "disk b"), /disk b: line 2/);
  assert.throws(() => parseSequence(content(line(1, "aaaaaaaa"), line(1, "aaaaaaaa")), "disk b"), /line 2/);
  assert.throws(() => parseSequence(content(line(1, "aaaaaaaa"), "\0".repeat(36)), "disk b"), /line 2/);
});

test("only numbers that one instant can hold are in write order", () => {
  for (const last of [
    [5, 5, 5],
    [5, 5, 4],
    [5, 4, 4],
    [0, 0, 0],
    [1, 0, 0],
  ])
    assert.ok(inWriteOrder(last), `${last}`);
  for (const last of [
    [5, 4, 5],
    [5, 6, 5],
    [5, 3, 3],
    [5, 5, 3],
    [4, 5, 5],
  ])
    assert.ok(!inWriteOrder(last), `${last}`);
});
