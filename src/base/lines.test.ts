import assert from "node:assert/strict";
import { test } from "node:test";
import { lineSplitter, parseJsonBounded } from "./lines.ts";

test("lines come out whole, however the bytes arrive", () => {
  const text = 'first\r\n{"a":"ü"}\n\n\r\nlast\n';
  for (let size = 1; size <= text.length; size++) {
    const lines: string[] = [];
    const split = lineSplitter(100, (line) => lines.push(line.toString("utf8").trim()));
    const data = Buffer.from(text);
    for (let at = 0; at < data.length; at += size) split(data.subarray(at, at + size));
    assert.deepEqual(lines, ["first", '{"a":"ü"}', "last"], `in pieces of ${size}`);
  }
});

test("a line that never ends is refused before it fills the memory", () => {
  const split = lineSplitter(1000, () => assert.fail("no line"));
  const chunk = Buffer.alloc(400, 97);
  split(chunk);
  split(chunk);
  assert.throws(() => split(chunk), { code: "RequestEntityTooLarge" });
});

test("a long line in one piece with its end is refused too", () => {
  const split = lineSplitter(10, () => assert.fail("no line"));
  assert.throws(() => split(Buffer.from(`${"x".repeat(11)}\n`)), { code: "RequestEntityTooLarge" });
});

test("JSON may nest 64 deep and no deeper; brackets in strings do not count", () => {
  const deep = (n: number) => "[".repeat(n) + "]".repeat(n);
  assert.ok(parseJsonBounded(deep(64)));
  assert.throws(() => parseJsonBounded(deep(65)), { code: "BadRequest" });
  assert.throws(() => parseJsonBounded("[".repeat(3_000_000)), { code: "BadRequest" });
  const text = `"${"[".repeat(500)}\\"[["`;
  assert.equal(parseJsonBounded(text), JSON.parse(text));
  assert.throws(() => parseJsonBounded("{nonsense"), { code: "BadRequest" });
});
