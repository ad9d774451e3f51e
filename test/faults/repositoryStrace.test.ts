import assert from "node:assert/strict";
import { lstat, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { systemClock, systemRandom } from "../../src/base/index.ts";
import { readKeyFile } from "../../src/keys/index.ts";
import { openRepository } from "../../src/repository/index.ts";
import { seeded } from "../../src/repository/testing/seeded.ts";
import { checkEveryCut, imageHash } from "./repositoryCrashCheck.ts";
import type { DiskState } from "./repositoryCrashModel.ts";
import { scenarioImages } from "./repositoryScenario.ts";
import { parseTrace, straceMissing, TRACED_CALLS, traced } from "./repositoryStrace.ts";

const child = fileURLToPath(new URL("./repositoryChild.ts", import.meta.url));
const missing = straceMissing();
const options = missing ? { skip: missing } : {};

async function withRepository(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "stillpoint-strace-"));
  try {
    const path = join(folder, "repository");
    const common = { region: "local", cacheDir: join(folder, "cache"), workers: 1 };
    const parts = { clock: systemClock, random: systemRandom };
    await (await openRepository({ path, keyFile: join(folder, "key"), ...common, ...parts })).close();
    await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function snapshot(root: string): Promise<DiskState> {
  const state: DiskState = new Map();
  for (const name of await readdir(root, { recursive: true })) {
    const facts = await lstat(join(root, name));
    state.set(name, facts.isDirectory() ? null : await readFile(join(root, name)));
  }
  return state;
}

test("the system calls that were really made lose no committed point at any cut", options, async (context) => {
  await withRepository(async (folder) => {
    const root = join(folder, "repository");
    const key = await readKeyFile(join(folder, "key"));
    assert.ok(key);
    const base = await snapshot(root);
    const trace = join(folder, "trace");
    const watch = ["-y", "-xx", "-s", "4000000", "-e", `trace=${TRACED_CALLS}`, "-o", trace];
    const { code, stderr } = await traced(watch, child, ["live", folder]);
    assert.equal(code, 0, stderr);
    const ops = parseTrace(await readFile(trace, "latin1"), root, join(folder, "marks"));
    const count = (kind: string) => ops.filter(({ op }) => op === kind).length;
    context.diagnostic(
      `${ops.length} calls: ${count("write")} writes, ${count("sync-file")} and ${count("sync-directory")} syncs`,
    );
    assert.equal(count("mark"), 5);
    assert.ok(count("sync-file") >= 12 && count("sync-directory") >= 12 && count("rename") >= 3 && count("link") >= 6);
    const truths = new Map(scenarioImages().map((image, n) => [`p${n}`, imageHash(image)]));
    const seed = process.env["STILLPOINT_SEED"] ?? systemRandom.bytes(6).toString("hex");
    context.diagnostic(`STILLPOINT_SEED=${seed}`);
    const states = await checkEveryCut({ key, base, ops, truths, random: seeded(seed) });
    context.diagnostic(`${states} different states`);
  });
});

test(
  "an fsync that fails once is final for what it concerned, although the next one says ok",
  options,
  async (context) => {
    await withRepository(async (folder) => {
      const told: string[] = [];
      for (let nth = 1; nth <= 12; nth++) {
        const inject = ["-e", "trace=fsync", "-e", `inject=fsync:error=EIO:when=${nth}`, "-y"];
        const { stdout, stderr } = await traced(inject, child, ["point", folder]);
        const hit = /fsync\(\d+<([^>]*)>\).*\(INJECTED\)/.exec(stderr)?.[1];
        if (!hit) {
          assert.equal(nth > 8, true, `only ${nth - 1} fsyncs were seen`);
          break;
        }
        const steps = stdout === "" ? null : (JSON.parse(stdout) as Record<string, string>);
        told.push(`${nth} ${hit.slice(folder.length)}: ${steps ? Object.values(steps).join(" ") : "not opened"}`);
        if (!steps) continue; // while opening: refused as a whole
        const failed = Object.entries(steps).filter(([, outcome]) => outcome !== "ok");
        assert.notEqual(failed.length, 0, `the failed fsync of ${hit} was not told: ${stdout}`);
        if (steps["journal"] === "ok") {
          const order = ["sync", "sync again", "manifest", "manifest again"];
          const first = order.findIndex((name) => steps[name] !== "ok");
          assert.ok(first >= 0, stdout);
          for (const name of order.slice(first))
            assert.equal(steps[name], "RepositoryUnavailable", `${name} after EIO on ${hit}`);
        }
      }
      context.diagnostic(told.join("; "));
      assert.ok(
        told.some((line) => /(RepositoryUnavailable ){3}/.test(line)),
        "a pack's fsync was hit",
      );
    });
  },
);
