import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { systemRandom } from "../../base/index.ts";
import { drawRepositoryKey, keyId } from "../../keys/index.ts";
import { openFrame, sealFrame } from "./frame.ts";
import { decodeNode, encodeNode, rootLevel } from "./node.ts";
import { ENCODING, SLOT_BYTES } from "./pack.ts";
import {
  authenticateHeader,
  decodeRepositoryHeader,
  encodeRepositoryHeader,
  readOnlyBecause,
} from "./repository-header.ts";

test("unknown features: ignored, reading only, or refused, by their class", () => {
  const none = { ignore: [], readOnly: [], refuse: [] };
  assert.equal(readOnlyBecause(none), null);
  assert.equal(readOnlyBecause({ ...none, ignore: ["tea"] }), null);
  assert.equal(readOnlyBecause({ ...none, readOnly: ["locks"] }), "locks");
  assert.throws(() => readOnlyBecause({ ...none, refuse: ["rot13"] }), {
    code: "RepositoryUnavailable",
    message: /'rot13', which is not known here\. Use a newer Stillpoint/,
  });
});

test("the header tells an accident, another version, another key and a forgery apart", () => {
  const key = drawRepositoryKey(systemRandom);
  const features = { ignore: [], readOnly: [], refuse: [] };
  const facts = { repositoryId: key.repositoryId, region: "r", createdAt: "t", platformDomain: "d", features };
  const header = { ...facts, keyId: keyId(key) };
  const bytes = encodeRepositoryHeader(header, key);
  const decoded = decodeRepositoryHeader(bytes, "repository");
  authenticateHeader(bytes, "repository", decoded, key);
  const bent = Buffer.from(bytes);
  bent[80] = (bent[80] as number) ^ 1;
  assert.throws(() => decodeRepositoryHeader(bent, "repository"), { code: "RepositoryDamaged" });
  const stolen = { ...key, secret: randomBytes(32) };
  assert.throws(() => authenticateHeader(bytes, "repository", decoded, stolen), { code: "KeyMismatch" });
  const forged = encodeRepositoryHeader(header, stolen);
  assert.throws(() => authenticateHeader(forged, "repository", decodeRepositoryHeader(forged, "repository"), key), {
    code: "RepositoryDamaged",
    message: /was not written with this key/,
  });
});

test("a frame opens only as what, where and under the ids it was sealed with", () => {
  const place = { domain: "ab".repeat(16), packId: randomBytes(32), packKey: randomBytes(32), kind: 1, ordinal: 3 };
  for (const plain of [Buffer.alloc(131_072, "squeezes well "), randomBytes(131_072)]) {
    const slots = randomBytes(2 * SLOT_BYTES);
    const out = Buffer.alloc(plain.length + 16);
    const { encoding, storedBytes } = sealFrame(out, place, slots, plain);
    const sealed = out.subarray(0, storedBytes);
    const frame = { ...place, encoding, plainBytes: plain.length };
    assert.deepEqual(openFrame(frame, slots, sealed), plain);
    assert.equal(encoding, plain[0] === 115 && plain[1] === 113 ? ENCODING.zstd : ENCODING.raw);
    const other = encoding === ENCODING.raw ? ENCODING.zstd : ENCODING.raw;
    for (const wrong of [
      { ...frame, domain: "cd".repeat(16) },
      { ...frame, packId: randomBytes(32) },
      { ...frame, packKey: randomBytes(32) },
      { ...frame, kind: 2 },
      { ...frame, ordinal: 4 },
      { ...frame, encoding: other },
    ])
      assert.equal(openFrame(wrong, slots, sealed), "its seal does not hold");
    assert.equal(openFrame(frame, randomBytes(2 * SLOT_BYTES), sealed), "its seal does not hold");
    assert.equal(openFrame(frame, slots.subarray(SLOT_BYTES), sealed), "its seal does not hold");
    assert.notEqual(typeof openFrame({ ...frame, plainBytes: plain.length - 1 }, slots, sealed), "object");
  }
});

test("nodes say only what they are", () => {
  const children = Buffer.alloc(32 * 32);
  assert.equal(encodeNode({ level: 0, children }), null);
  randomBytes(32).copy(children, 31 * 32);
  randomBytes(32).copy(children, 5 * 32);
  const bytes = encodeNode({ level: 2, children });
  assert.ok(bytes);
  assert.equal(bytes.length, 8 + 64);
  assert.deepEqual(decodeNode(bytes, 2, "n"), { level: 2, children });
  assert.throws(() => decodeNode(bytes, 1, "n"), { code: "RepositoryDamaged" });
  assert.throws(() => decodeNode(bytes.subarray(0, -1), 2, "n"), { code: "RepositoryDamaged" });
  assert.throws(() => decodeNode(Buffer.concat([bytes, bytes]), 2, "n"), { code: "RepositoryDamaged" });
  assert.throws(() => decodeNode(Buffer.alloc(0), 0, "n"), { code: "RepositoryDamaged" });
  const GiB = 2 ** 30;
  assert.deepEqual(
    [512, 2 ** 21, 2 ** 21 + 512, GiB * 2, GiB * 2 + 512, GiB * 1024, 2 * 1024 * GiB + 512].map(rootLevel),
    [0, 0, 1, 2, 3, 4, 5],
  );
});
