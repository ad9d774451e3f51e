import assert from "node:assert/strict";
import { createHmac, randomBytes } from "node:crypto";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemRandom } from "../base/index.ts";
import {
  createKeyFile,
  drawRepositoryKey,
  keyedHash,
  keyId,
  parseKey,
  readKeyFile,
  recoveryKit,
  seal,
  unseal,
} from "./index.ts";

test("the keyed hash is HMAC-SHA256", () => {
  for (const length of [0, 1, 55, 64, 65_536]) {
    const key = randomBytes(32);
    const data = randomBytes(length);
    assert.deepEqual(keyedHash(key)(data), createHmac("sha256", key).update(data).digest());
  }
});

test("a seal holds against every change of key, place, meaning and content", () => {
  const key = randomBytes(32);
  const aad = Buffer.from("meaning");
  const plain = randomBytes(200_000);
  const sealed = seal(key, 7, aad, plain);
  assert.deepEqual(unseal(key, 7, aad, sealed), plain);
  assert.equal(unseal(randomBytes(32), 7, aad, sealed), null);
  assert.equal(unseal(key, 8, aad, sealed), null);
  assert.equal(unseal(key, 7, Buffer.from("Meaning"), sealed), null);
  assert.equal(unseal(key, 7, aad, sealed.subarray(0, -1)), null);
  assert.equal(unseal(key, 7, aad, sealed.subarray(0, 10)), null);
  const flipped = Buffer.from(sealed);
  flipped[100_000] = (flipped[100_000] as number) ^ 1;
  assert.equal(unseal(key, 7, aad, flipped), null);
});

test("a key file is private, is never replaced, and says what is wrong with it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "stillpoint-keys-"));
  try {
    const path = join(folder, "deep", "key");
    const key = drawRepositoryKey(systemRandom);
    assert.equal(await readKeyFile(path), null);
    await createKeyFile(path, key);
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    assert.deepEqual(await readKeyFile(path), key);
    await assert.rejects(createKeyFile(path, drawRepositoryKey(systemRandom)), { code: "EEXIST" });
    for (const [text, problem] of [
      ["", /has no line 'stillpoint-key:'/],
      ["stillpoint-key: 2", /version '2' is not known/],
      ["stillpoint-key: 1\nrepository: 12\nkey: 34", /repository id is not 32/],
      [`stillpoint-key: 1\nrepository: ${key.repositoryId}\nkey: 34`, /key is not 64/],
    ] as const) {
      await writeFile(path, text);
      await assert.rejects(readKeyFile(path), { code: "KeyMismatch", message: problem, target: path });
    }
    await assert.rejects(readKeyFile(folder), { code: "KeyMismatch", message: /cannot be read/ });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test("every single mistyped digit of a recovery kit is noticed", () => {
  const key = drawRepositoryKey(systemRandom);
  const kit = recoveryKit(key, { region: "here", printedAt: new Date(0) });
  assert.deepEqual(parseKey(kit, "kit"), key);
  const lines = kit.indexOf("repository: ");
  for (let at = lines; at < kit.length; at++) {
    const digit = kit[at] as string;
    if (!/[0-9a-f]/.test(digit) || /[a-z]+:/.test(kit.slice(at).split(" ")[0] ?? "")) continue;
    const wrong = `${kit.slice(0, at)}${digit === "0" ? "1" : "0"}${kit.slice(at + 1)}`;
    if (
      /^(stillpoint-key|repository|key|check):/m.test(
        wrong
          .slice(at - 20, at + 1)
          .split("\n")
          .at(-1) ?? "",
      )
    )
      assert.throws(() => parseKey(wrong, "kit"), { code: "KeyMismatch" }, `digit ${at}`);
  }
});

test("the key's public name does not depend on the file and differs between keys", () => {
  const key = drawRepositoryKey(systemRandom);
  assert.equal(keyId(key), keyId({ ...key }));
  assert.notEqual(keyId(key), keyId(drawRepositoryKey(systemRandom)));
});
