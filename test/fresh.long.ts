import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join, resolve } from "node:path";
import { test } from "node:test";

const repo = resolve(import.meta.dirname, "..");

test("on a bare Debian 12 the quickstart works from a fresh clone, and at once again without a network", async () => {
  const child = spawn("bash", [join(repo, ".ci/fresh")], { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  const code = await new Promise((done) => child.once("close", done));
  const told = output.split("\n").filter((line) => /^(fresh|setup|ok|FAILED|quickstart|proof)/.test(line));
  console.log(told.join("\n"));
  assert.equal(code, 0, output.slice(-4000));
  assert.equal(told.filter((line) => line === "quickstart: ok").length, 2);
});
