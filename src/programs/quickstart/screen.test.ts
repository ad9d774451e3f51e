import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../base/index.ts";
import { bar, createScreen, sized, table } from "./screen.ts";

function paper(isTTY: boolean) {
  let text = "";
  const stream = {
    isTTY,
    columns: 60,
    write: (part: string) => {
      text += part;
      return true;
    },
  };
  return { stream: stream as unknown as NodeJS.WriteStream, text: () => text };
}

test("off a terminal each step is one line, printed when it is done", async () => {
  const { stream, text } = paper(false);
  const screen = createScreen(stream, systemClock);
  await screen.step(
    "copy",
    async (progress) => {
      progress("half");
      return 7;
    },
    (n) => `${n} files`,
  );
  assert.match(text(), /^ok copy: 7 files \(\d+\.\d s\)\n$/);
});

test("on a terminal progress is rewritten in place and a failed step says so", async () => {
  const { stream, text } = paper(true);
  const screen = createScreen(stream, systemClock);
  const failing = screen.step("copy", async (progress) => {
    progress("x".repeat(200));
    throw new Error("disk full");
  });
  await assert.rejects(failing, /disk full/);
  assert.match(text(), /FAILED copy\n$/);
  for (const drawn of text().split("\r\x1b[2K")) assert.ok(drawn.length < 80, "a line never wraps");
});

test("columns are as wide as their widest cell, sizes are told in the unit that fits", () => {
  assert.deepEqual(
    table([
      ["", "a"],
      ["long title", "1"],
    ]),
    ["            a", "----------  -", "long title  1"],
  );
  assert.deepEqual([0, 1023, 1024, 1536 * 1024, 3 * 1024 ** 4].map(sized), [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 MiB",
    "3.0 TiB",
  ]);
  assert.equal(bar(0), "[....................] 0 %");
  assert.equal(bar(50), "[##########..........] 50 %");
  assert.equal(bar(100), "[####################] 100 %");
});
