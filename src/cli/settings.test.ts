import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connectionOf } from "./settings.ts";

test("a token file that may not be read is named, with who may", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "stillpoint-cli-"));
  t.after(() => rmSync(folder, { recursive: true }));
  chmodSync(folder, 0o755);
  const tokenFile = join(folder, "token");
  writeFileSync(tokenFile, "secret", { mode: 0o000 });
  // Root reads everything: be nobody for one synchronous call.
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid?.(65_534);
  try {
    assert.throws(
      () => connectionOf({ url: "https://127.0.0.1:1", tokenFile, caFile: tokenFile }, {}),
      (error: Error) => error.message.includes(`${tokenFile}: permission denied. Run this as root`),
    );
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
});

test("flags win over the environment, and that over the client file", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "stillpoint-cli-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = (name: string, content: string) => {
    writeFileSync(join(folder, name), content);
    return join(folder, name);
  };
  const [a, b, c] = [file("a", "token-a\n"), file("b", "token-b\n"), file("c", "token-c\n")];
  const client = { url: "https://127.0.0.1:1/", tokenFile: a, caFile: a };
  file("client.json", JSON.stringify(client));
  const env = { STILLPOINT_DATA_DIR: folder };
  assert.deepEqual(connectionOf({}, env), { url: "https://127.0.0.1:1", token: "token-a", ca: "token-a\n" });
  assert.equal(connectionOf({}, { ...env, STILLPOINT_TOKEN_FILE: b }).token, "token-b");
  assert.equal(connectionOf({ tokenFile: c }, { ...env, STILLPOINT_TOKEN_FILE: b }).token, "token-c");
});
