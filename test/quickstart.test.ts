import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { test } from "node:test";

const repo = resolve(import.meta.dirname, "..");

// The walk itself is tried on a bare machine (fresh.long.ts); here is what it says when it cannot begin.
test("a quickstart that cannot write ends with its reason, the command that mends it, and code 1", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "stillpoint-quickstart-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "file"), "");
  const root = join(folder, "file/below");
  const result = spawnSync(process.execPath, [join(repo, "src/programs/quickstart.ts"), "--data-dir", root], {
    encoding: "utf8",
  });
  assert.equal(result.status, 1);
  assert.match(result.stdout, /^quickstart: failed: .*cannot be written/m);
  assert.ok(result.stdout.includes(`install -d -o stillpoint -g stillpoint -m 0700 ${root}`));
  assert.doesNotMatch(result.stdout, /quickstart: ok/);
});
