/** What every storage must hold, whatever it stands on: the contract of storage.ts as tests. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import type { Storage, StoredObject } from "./storage.ts";

export interface StorageUnderTest {
  /** A storage over the same objects as before; the first call gives an empty one. */
  open(): Promise<Storage>;
  remove(): Promise<void>;
}

async function listed(storage: Storage, folder: string): Promise<StoredObject[]> {
  const found: StoredObject[] = [];
  for await (const object of storage.list(folder)) found.push(object);
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

export function storageConformance(name: string, make: () => Promise<StorageUnderTest>): void {
  const check = (what: string, work: (storage: Storage, again: () => Promise<Storage>) => Promise<void>) =>
    test(`${name}: ${what}`, async () => {
      const under = await make();
      const storage = await under.open();
      try {
        await work(storage, under.open);
      } finally {
        await storage.close();
        await under.remove();
      }
    });

  check("what was committed is there whole, also for the next one who opens it", async (storage, again) => {
    const parts = [randomBytes(100_000), randomBytes(1), randomBytes(70_000)] as const;
    const writer = await storage.begin("packs/ab/abc");
    await writer.append([parts[0], parts[1]]);
    await writer.append([parts[2]]);
    await writer.commit();
    const whole = Buffer.concat(parts);
    for (const one of [storage, await again()]) {
      assert.deepEqual(await one.read("packs/ab/abc"), whole);
      assert.equal(await one.size("packs/ab/abc"), whole.length);
      assert.deepEqual(await one.readRange("packs/ab/abc", 99_999, 3), whole.subarray(99_999, 100_002));
    }
  });

  check("an object is not seen before it is committed, nor after it was given up", async (storage, again) => {
    const writer = await storage.begin("packs/aa/one");
    await writer.append([randomBytes(10)]);
    assert.equal(await storage.read("packs/aa/one"), null);
    assert.deepEqual(await listed(storage, "packs/"), []);
    await writer.abort();
    assert.equal(await storage.size("packs/aa/one"), null);
    const unfinished = await storage.begin("packs/aa/two");
    await unfinished.append([randomBytes(10)]);
    const next = await again();
    assert.deepEqual(await listed(next, "packs/"), []);
    await unfinished.abort();
  });

  check("parts may be changed again when append resolves", async (storage) => {
    const part = Buffer.from("before");
    const writer = await storage.begin("packs/aa/one");
    await writer.append([part]);
    part.fill("x");
    await writer.commit();
    assert.equal((await storage.read("packs/aa/one"))?.toString(), "before");
  });

  check("creating is exclusive, and the same bytes again are fine", async (storage, again) => {
    const content = randomBytes(1000);
    assert.equal(await storage.create("journal/1", content), "created");
    assert.equal(await storage.create("journal/1", content), "same");
    assert.equal(await storage.create("journal/1", randomBytes(1000)), "other");
    assert.equal(await storage.create("journal/1", content.subarray(0, 999)), "other");
    assert.equal(await storage.create("journal/1", Buffer.concat([content, content])), "other");
    assert.deepEqual(await (await again()).read("journal/1"), content);
  });

  check("of many who create at the same time, one wins", async (storage) => {
    const contents = Array.from({ length: 8 }, () => randomBytes(100));
    const outcomes = await Promise.all(contents.map((content) => storage.create("journal/1", content)));
    assert.deepEqual(outcomes.filter((outcome) => outcome === "created").length, 1);
    assert.deepEqual(outcomes.filter((outcome) => outcome === "other").length, 7);
    assert.deepEqual(await storage.read("journal/1"), contents[outcomes.indexOf("created")]);
  });

  check("lists name everything below a folder and nothing else", async (storage) => {
    assert.deepEqual(await listed(storage, "packs/"), []);
    for (const object of ["packs/aa/a1", "packs/bb/b1", "manifests/m1", "packs-other/x"])
      await storage.create(object, Buffer.from(object));
    assert.deepEqual(await listed(storage, "packs/"), [
      { name: "packs/aa/a1", sizeBytes: 11 },
      { name: "packs/bb/b1", sizeBytes: 11 },
    ]);
  });

  check("what is deleted is gone; deleting what is not there is fine", async (storage) => {
    await storage.create("manifests/m1", Buffer.from("m"));
    await storage.delete("manifests/m1");
    await storage.delete("manifests/m1");
    assert.equal(await storage.read("manifests/m1"), null);
    assert.deepEqual(await listed(storage, "manifests/"), []);
    assert.equal(await storage.create("manifests/m1", Buffer.from("other")), "created");
  });

  check("missing objects and short ones are told apart, and never read as empty", async (storage) => {
    await storage.create("manifests/m1", Buffer.from("12345"));
    await assert.rejects(storage.readRange("manifests/m2", 0, 1), { code: "NotFound", target: "manifests/m2" });
    await assert.rejects(storage.readRange("manifests/m1", 3, 3), { code: "RepositoryDamaged" });
    assert.equal((await storage.readRange("manifests/m1", 5, 0)).length, 0);
  });

  check("names that leave the storage are refused", async (storage) => {
    for (const bad of ["../x", "a/../b", "/x", "a//b", "", "a/", ".hidden", "A"])
      await assert.rejects(async () => storage.read(bad), RangeError, bad);
  });
}
