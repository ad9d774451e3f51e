/** What the domain's catalog port promises, held on every adapter of it. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bytes, idKey, type ResourceId } from "../../src/base/index.ts";
import { openCatalog } from "../../src/catalog/index.ts";
import type { Catalog } from "../../src/domain/index.ts";
import { collectionOf, diskOf, groupOf, intentOf, operationOf, pointOf, sub, vmOf } from "./catalogRows.ts";

let folder = "";
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "stillpoint-catalog-"));
});
after(() => rm(folder, { recursive: true }));

let files = 0;
const adapters: Readonly<Record<string, () => Promise<Catalog>>> = {
  "a file": () => openCatalog(join(folder, `catalog-${++files}.sqlite`)),
  memory: () => openCatalog(":memory:"),
};

for (const [name, open] of Object.entries(adapters))
  describe(`the catalog on ${name}`, () => {
    let catalog: Catalog;
    before(async () => {
      catalog = await open();
    });
    after(() => catalog.close());

    test("gives back what was put, by a key in any case, with its display case", async () => {
      const disk = diskOf("Shop", "OS-Disk", {
        tags: { "naïve ‘tag’": "värde\u0000\ud83d\ude00" },
        sizeBytes: bytes(2 ** 52),
      });
      await catalog.transaction((tx) => tx.putResource(disk));
      const other = disk.id.toUpperCase() as ResourceId;
      assert.deepEqual(await catalog.read((tx) => tx.resource("disk", idKey(other))), disk);
      assert.deepEqual(await catalog.read((tx) => tx.diskByUid(disk.diskUid)), disk);
      assert.deepEqual(await catalog.read((tx) => tx.diskByPath(disk.path ?? "")), disk);
      assert.equal(await catalog.read((tx) => tx.resource("vm", idKey(disk.id))), null);
      const renamed = { ...disk, id: disk.id.replace("OS-Disk", "os-disk") as ResourceId, tags: {} };
      await catalog.transaction((tx) => tx.putResource(renamed));
      assert.deepEqual(await catalog.read((tx) => tx.resource("disk", idKey(disk.id))), renamed);
      await catalog.transaction((tx) => tx.deleteResource("disk", idKey(disk.id)));
      assert.equal(await catalog.read((tx) => tx.diskByUid(disk.diskUid)), null);
    });

    test("a transaction that throws changes nothing, and the next one works", async () => {
      const vm = vmOf("Shop", "rolled-back");
      const failure = new Error("a rule says no");
      await assert.rejects(
        catalog.transaction(async (tx) => {
          await tx.putResource(vm);
          await tx.putSetting("half", "done");
          assert.deepEqual(await tx.vmByUid(vm.vmUid), vm, "a transaction sees its own writes");
          throw failure;
        }),
        failure,
      );
      const left = await catalog.read(async (tx) => [await tx.vmByUid(vm.vmUid), await tx.setting("half")]);
      assert.deepEqual(left, [null, null]);
      await catalog.transaction((tx) => tx.putSetting("half", "no"));
      assert.equal(await catalog.read((tx) => tx.setting("half")), "no");
      await catalog.transaction((tx) => tx.putSetting("half", null));
      assert.equal(await catalog.read((tx) => tx.setting("half")), null);
    });

    test("transactions run one after another: no increment of a hundred is lost", async () => {
      const increment = () =>
        catalog.transaction(async (tx) => {
          const before = Number((await tx.setting("count")) ?? 0);
          await new Promise((resolve) => setImmediate(resolve));
          await tx.putSetting("count", String(before + 1));
        });
      await Promise.all(Array.from({ length: 100 }, increment));
      assert.equal(await catalog.read((tx) => tx.setting("count")), "100");
    });

    test("a read sees the last committed state, never half a transaction", async () => {
      await catalog.transaction((tx) => tx.putSetting("a", "0"));
      await catalog.transaction((tx) => tx.putSetting("b", "0"));
      const writing = catalog.transaction(async (tx) => {
        await tx.putSetting("a", "1");
        for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
        await tx.putSetting("b", "1");
      });
      const seen = await Promise.all(
        Array.from({ length: 10 }, async (_, i) => {
          for (let turn = 0; turn < i * 3; turn++) await new Promise((resolve) => setImmediate(resolve));
          return catalog.read(async (tx) => `${await tx.setting("a")}${await tx.setting("b")}`);
        }),
      );
      await writing;
      for (const pair of seen) assert.ok(pair === "00" || pair === "11", `saw ${pair}`);
      assert.equal(await catalog.read(async (tx) => `${await tx.setting("a")}${await tx.setting("b")}`), "11");
    });

    test("pages through a scope in key order, and through no other scope", async () => {
      const names = ["b", "A", "c-1", "c.2", "D", "zz", "z"];
      await catalog.transaction(async (tx) => {
        for (const name of names) await tx.putResource(vmOf("Pages", name));
        await tx.putResource(vmOf("Pages2", "elsewhere"));
        await tx.putResource(vmOf("Page", "elsewhere"));
      });
      const prefix = `${idKey(groupOf("Pages").id)}/`;
      const seen: string[] = [];
      for (let after: ReturnType<typeof idKey> | null = null; ; ) {
        const page = await catalog.read((tx) => tx.resources("vm", prefix, { after, limit: 3 }));
        seen.push(...page.map((vm) => vm.name));
        const last = page.at(-1);
        if (!last) break;
        after = idKey(last.id);
        await catalog.transaction((tx) => tx.deleteResource("vm", idKey(last.id)));
      }
      assert.deepEqual(seen, ["A", "b", "c-1", "c.2", "D", "z", "zz"]);
    });

    test("groups and subscriptions are found by subscription, whatever its case", async () => {
      const groups = [groupOf("g2"), groupOf("G1"), groupOf("other", sub(2))];
      await catalog.transaction(async (tx) => {
        for (const group of groups) await tx.putGroup(group);
      });
      const all = { after: null, limit: 10 };
      const first = await catalog.read((tx) => tx.groups(sub(1).toUpperCase(), all));
      assert.deepEqual(
        first.map((group) => group.name),
        ["G1", "g2"],
      );
      assert.deepEqual(await catalog.read((tx) => tx.subscriptions()), [sub(1), sub(2)]);
      for (const group of groups) await catalog.transaction((tx) => tx.deleteGroup(idKey(group.id)));
      assert.deepEqual(await catalog.read((tx) => tx.subscriptions()), []);
    });

    test("counts points towards the limit and lists those under way", async () => {
      const vm = vmOf("Points", "counted");
      const collection = collectionOf("Points", "c", vm);
      const states = ["Succeeded", "Creating", "Committing", "Failed", "Deleting", "Succeeded", "Failed"] as const;
      const points = states.map((state, n) => pointOf(collection, `p${n}`, vm, { state }));
      await catalog.transaction(async (tx) => {
        await tx.putResource(collection);
        for (const point of points) await tx.putPoint(point);
      });
      const names = (list: readonly { readonly name: string }[]) => list.map((point) => point.name);
      await catalog.read(async (tx) => {
        assert.equal(await tx.countPoints(vm.vmUid), 5);
        assert.deepEqual(names(await tx.creating(vm.vmUid)), ["p1", "p2"]);
        assert.deepEqual(names(await tx.unsettledPoints()), ["p1", "p2", "p4"]);
        assert.deepEqual(names(await tx.points(idKey(collection.id), { after: null, limit: 3 })), ["p0", "p1", "p2"]);
        assert.deepEqual(await tx.pointByUid(points[3]?.uid ?? (points[0]?.uid as never)), points[3]);
        assert.deepEqual(
          (await tx.collectionsOfVm(idKey(vm.id))).map((c) => c.name),
          ["c"],
        );
      });
      const [first] = points;
      assert.ok(first);
      await catalog.transaction((tx) => tx.putPoint({ ...first, manifest: "abc" }));
      assert.deepEqual(await catalog.read((tx) => tx.liveManifests()), [{ pointId: first.id, manifest: "abc" }]);
      await assert.rejects(
        catalog.transaction((tx) => tx.deleteResource("collection", idKey(collection.id))),
        { code: "InternalError" },
        "a collection never goes before its points",
      );
    });

    test("a pinned point cannot be deleted, whatever the code above forgets", async () => {
      const vm = vmOf("Pins", "pinned");
      const collection = collectionOf("Pins", "c", vm);
      const point = pointOf(collection, "p", vm, { state: "Succeeded" });
      const operation = operationOf("restore", point.id);
      await catalog.transaction(async (tx) => {
        await tx.putResource(collection);
        await tx.putPoint(point);
        await tx.putOperation(operation);
        await tx.pin(point.uid, operation.id);
        await tx.pin(point.uid, operation.id);
      });
      assert.deepEqual(await catalog.read((tx) => tx.pins()), [{ point: point.uid, operation: operation.id }]);
      await assert.rejects(catalog.transaction((tx) => tx.deletePoint(idKey(point.id))));
      await catalog.transaction(async (tx) => {
        await tx.unpin(operation.id);
        await tx.deletePoint(idKey(point.id));
      });
      assert.equal(await catalog.read((tx) => tx.point(idKey(point.id))), null);
    });

    test("keeps operations after their end, and lists the open ones by resource", async () => {
      const vm = vmOf("Ops", "vm");
      const open = operationOf("vm-start", vm.id);
      const ended = { ...operationOf("vm-start", vm.id), status: "Succeeded" as const, output: { a: [1, null] } };
      await catalog.transaction(async (tx) => {
        await tx.putOperation(open);
        await tx.putOperation(ended);
      });
      await catalog.read(async (tx) => {
        assert.deepEqual(await tx.operation(ended.id), ended);
        assert.deepEqual(await tx.openOperationsOf(idKey(vm.id.toUpperCase() as ResourceId)), [open]);
        assert.ok((await tx.openOperations()).some((operation) => operation.id === open.id));
        assert.ok(!(await tx.openOperations()).some((operation) => operation.id === ended.id));
      });
      await catalog.transaction((tx) => tx.putOperation({ ...open, status: "Failed" }));
      assert.deepEqual(await catalog.read((tx) => tx.openOperationsOf(idKey(vm.id))), []);
    });

    test("keeps intents with their plan, and anchors per disk", async () => {
      const vm = vmOf("Intents", "vm");
      const intent = intentOf(vm, { plan: { steps: [{ name: "open", n: 1 }] } });
      const anchor = {
        diskUid: diskOf("Intents", "d").diskUid,
        pointUid: intent.pointUid,
        tree: { root: "00" },
        lineage: "l",
        bitmap: null,
        node: null,
        sizeBytes: bytes(512),
      };
      await catalog.transaction(async (tx) => {
        await tx.putIntent(intentOf(vm, { capture: intent.capture }));
        await tx.putIntent({ ...intent, anchors: [anchor] });
        await tx.putAnchor({ ...anchor, bitmap: "old" });
        await tx.putAnchor(anchor);
      });
      await catalog.read(async (tx) => {
        assert.deepEqual(await tx.intent(intent.capture), { ...intent, anchors: [anchor] });
        assert.deepEqual(await tx.intentsOfVm(vm.vmUid), [{ ...intent, anchors: [anchor] }]);
        assert.deepEqual(await tx.intents(), [{ ...intent, anchors: [anchor] }]);
        assert.deepEqual(await tx.anchor(anchor.diskUid), anchor);
        assert.deepEqual(await tx.anchors(), [anchor]);
      });
      await catalog.transaction(async (tx) => {
        await tx.deleteIntent(intent.capture);
        await tx.deleteAnchor(anchor.diskUid);
      });
      assert.deepEqual(await catalog.read(async (tx) => [await tx.intents(), await tx.anchors()]), [[], []]);
    });

    test("the journal: a number is given once, unpublished entries in order with their bytes", async () => {
      const row = (number: number) => ({
        number,
        hash: `hash-${number}`,
        bytes: Buffer.from([0, 255, number]),
        published: false,
      });
      assert.equal(await catalog.read((tx) => tx.journalHead()), null);
      await catalog.transaction(async (tx) => {
        await tx.appendJournal({ ...row(7), published: true });
        await tx.appendJournal(row(9));
        await tx.appendJournal(row(8));
      });
      await assert.rejects(catalog.transaction((tx) => tx.appendJournal(row(8))));
      await catalog.read(async (tx) => {
        assert.deepEqual(await tx.journalHead(), { number: 9, hash: "hash-9" });
        assert.equal(await tx.journalHash(7), "hash-7");
        assert.equal(await tx.journalHash(6), null);
        const waiting = await tx.unpublished();
        assert.deepEqual(
          waiting.map((entry) => [entry.number, [...entry.bytes]]),
          [
            [8, [0, 255, 8]],
            [9, [0, 255, 9]],
          ],
        );
      });
      await catalog.transaction((tx) => tx.markPublished(8));
      assert.deepEqual(
        (await catalog.read((tx) => tx.unpublished())).map((entry) => entry.number),
        [9],
      );
      assert.deepEqual(await catalog.read((tx) => tx.journalHead()), { number: 9, hash: "hash-9" });
    });

    test("two disks on one file are refused", async () => {
      await catalog.transaction((tx) => tx.putResource(diskOf("Paths", "one", { path: "/pool/same.raw" })));
      await assert.rejects(
        catalog.transaction((tx) => tx.putResource(diskOf("Paths", "two", { path: "/pool/same.raw" }))),
      );
      await catalog.transaction(async (tx) => {
        await tx.putResource(diskOf("Paths", "three", { path: null }));
        await tx.putResource(diskOf("Paths", "four", { path: null }));
      });
    });
  });

describe("a catalog file", () => {
  test("is there again after closing, readable by its owner alone", async () => {
    const path = join(folder, "again.sqlite");
    const group = groupOf("Again");
    const first = await openCatalog(path);
    await first.transaction((tx) => tx.putGroup(group));
    await first.close();
    assert.equal((await stat(path)).mode & 0o777, 0o600);
    const second = await openCatalog(path);
    assert.deepEqual(await second.read((tx) => tx.group(idKey(group.id))), group);
    await second.close();
  });

  test("is refused to a second service, in words that say what to do", async () => {
    const path = join(folder, "held.sqlite");
    const first = await openCatalog(path);
    await assert.rejects(openCatalog(path), {
      code: "Conflict",
      message: /Another Stillpoint service.*Stop that service/,
    });
    await first.close();
    await (await openCatalog(path)).close();
  });

  test("is free again when the service that held it was killed, and has every durable row", async () => {
    const path = join(folder, "killed.sqlite");
    const script = `
      import { openCatalog } from ${JSON.stringify(new URL("../../src/catalog/index.ts", import.meta.url).href)};
      const catalog = await openCatalog(${JSON.stringify(path)});
      for (let n = 0; ; n++) {
        await catalog.transaction((tx) => tx.putSetting("n", String(n)));
        process.stdout.write(n + "\\n");
      }`;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let told = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      told += text;
      if (told.split("\n").length > 20) child.kill("SIGKILL");
    });
    await once(child, "close");
    const last = Number(told.split("\n").at(-2));
    const catalog = await openCatalog(path);
    const found = Number(await catalog.read((tx) => tx.setting("n")));
    await catalog.close();
    assert.ok(found === last || found === last + 1, `told ${last}, found ${found}`);
  });

  test("of a newer version is refused and stays as it is", async () => {
    const path = join(folder, "newer.sqlite");
    await (await openCatalog(path)).close();
    const { DatabaseSync } = await import("node:sqlite");
    const db = new DatabaseSync(path);
    db.exec("insert into kysely_migration (name, timestamp) values ('9999-later', '2099-01-01T00:00:00.000Z')");
    db.close();
    await assert.rejects(openCatalog(path), { code: "Conflict", message: /newer Stillpoint/ });
  });

  test("answers every question a request asks by an index", async () => {
    const path = join(folder, "plans.sqlite");
    await (await openCatalog(path)).close();
    const { DatabaseSync } = await import("node:sqlite");
    const db = new DatabaseSync(path);
    const plan = (query: string) =>
      db
        .prepare(`explain query plan ${query}`)
        .all()
        .map((row) => String(row["detail"]))
        .join("; ");
    const questions = {
      "select body from points where key = ?": /SEARCH points USING INDEX/,
      "select body from points where collection_key = ? and key > ? order by key limit 10":
        /SEARCH .*points_by_collection/,
      "select count(*) from points where vm_uid = ? and state != 'Failed'": /SEARCH .*points_counted/,
      "select body from points where state in ('Creating','Committing') and vm_uid = ?": /SEARCH .*points_by_state/,
      "select body from operations where status = 'InProgress' and resource_key = ?": /SEARCH .*operations_open/,
      "select * from journal where published = 0 order by number": /journal_unpublished/,
      "select number, hash from journal order by number desc limit 1": /journal/,
      "select body from disks where path = ?": /SEARCH disks USING INDEX/,
    };
    for (const [query, expected] of Object.entries(questions)) {
      assert.match(plan(query), expected, query);
      assert.doesNotMatch(plan(query), /TEMP B-TREE/, query);
    }
    db.close();
  });
});
