/** Guard and service on a site of their own, in a temporary folder: as the user stillpoint when root runs the tests. */
import { execFileSync } from "node:child_process";
import { chownSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { systemClock } from "../../../src/base/index.ts";
import type { ApiClient } from "../../../src/programs/quickstart/client.ts";
import {
  type DaemonName,
  findDaemon,
  lastWords,
  type Site,
  startDaemon,
  stopDaemon,
  waitUntilReady,
} from "../../../src/programs/quickstart/daemons.ts";
import { programFor } from "./program.ts";

process.env["PATH"] = `${process.env["PATH"]}:/usr/local/sbin:/usr/sbin:/sbin`;

export interface StartOptions {
  /** Merged into the configuration, member by member (`{ limits: { silenceMinutes: 1 } }`). */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Environment of one program, for example STILLPOINT_CRASH_AT. */
  readonly env?: Partial<Record<DaemonName, Readonly<Record<string, string>>>>;
  /** An earlier site's folder, to go on with what it left (from {@link Stillpoint.folder}). */
  readonly folder?: string;
}

export interface Stillpoint {
  readonly folder: string;
  readonly dataDir: string;
  /** The pool `main` of the host `host1`. */
  readonly poolDir: string;
  readonly captureDir: string;
  readonly repositoryDir: string;
  readonly keyFile: string;
  readonly configFile: string;
  /** Of guard and service; undefined when they run as the present user. */
  readonly user: { readonly uid: number; readonly gid: number } | undefined;
  client: ApiClient;
  pid(name: DaemonName): number | null;
  /** kill -9, and waits until the process is gone. */
  kill(name: DaemonName): Promise<void>;
  /** SIGTERM, and waits. */
  end(name: DaemonName): Promise<void>;
  /** Starts one of the two again (other environment if given) and does not wait until it is ready. */
  start(name: DaemonName, env?: Readonly<Record<string, string>>): Promise<void>;
  /** Waits until both run and the service is ready; renews `client`. */
  ready(): Promise<void>;
  lastWords(name: DaemonName): Promise<string>;
  /** Gives a file in a pool (or elsewhere) to the user of the service. */
  own(path: string): void;
  /** Pids of everything that runs for this site, QEMUs included. */
  processes(): readonly number[];
  /** Ends every process of this site by its pid and, unless told to keep it, removes the folder. */
  stop(options?: { readonly keepFolder?: boolean }): Promise<void>;
}

/** Sites whose `stop` was not reached yet. */
const running = new Set<string>();

/** A test process that is cancelled or fails outside its hooks leaves nothing behind either. */
function stopAtExit(): void {
  for (const folder of running) {
    killAll(processesNaming(folder));
    rmSync(folder, { recursive: true, force: true });
  }
}
process.once("exit", stopAtExit);
for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => process.exit(1));

/** Starts guard and service and waits until the service is ready. Always `await stop()` in the end. */
export async function startStillpoint(options: StartOptions = {}): Promise<Stillpoint> {
  const user = serviceUser();
  // short: a unix socket's path holds 107 bytes
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), "sp-")));
  const own = (path: string) => user && chownSync(path, user.uid, user.gid);
  const at = (name: string) => join(folder, name);
  running.add(folder);
  own(folder);
  await chmod(folder, 0o711);
  for (const name of ["data", "pool", "capture", "repository", "keys", "run"]) {
    await mkdir(at(name), { recursive: true, mode: 0o700 });
    own(at(name));
  }
  const configFile = at("config.yaml");
  await writeFile(configFile, stringify(merged(baseConfig(folder), options.config ?? {})));
  const program = await programFor(folder);
  const site = (name: DaemonName, env = options.env?.[name]): Site => ({
    program,
    config: configFile,
    dataDir: at("data"),
    runDir: at("run"),
    ...(user ? { user } : {}),
    ...(env ? { env } : {}),
  });
  const self: Omit<Stillpoint, "client"> & { client: ApiClient | null } = {
    folder,
    dataDir: at("data"),
    poolDir: at("pool"),
    captureDir: at("capture"),
    repositoryDir: at("repository"),
    keyFile: at("keys/repository.key"),
    configFile,
    user,
    client: null,
    pid: (name) => findDaemon(site(name), name),
    kill: async (name) => {
      const pid = findDaemon(site(name), name);
      if (pid === null) return;
      process.kill(pid, "SIGKILL");
      while (findDaemon(site(name), name) !== null) await systemClock.sleep(10);
    },
    end: (name) => stopDaemon(site(name), name, systemClock),
    start: async (name, env) => void (await startDaemon(site(name, env), name)),
    ready: async () => {
      self.client?.close();
      self.client = await waitUntilReady(site("service"), systemClock);
    },
    lastWords: (name) => lastWords(site(name), name),
    own: (path) => void own(path),
    processes: () => processesNaming(folder),
    stop: async ({ keepFolder = false } = {}) => {
      self.client?.close();
      await stopDaemon(site("service"), "service", systemClock);
      await stopDaemon(site("guard"), "guard", systemClock);
      await endAll(folder);
      running.delete(folder);
      if (!keepFolder) await rm(folder, { recursive: true, force: true });
    },
  };
  try {
    for (const name of ["guard", "service"] as const) await startDaemon(site(name), name);
    await self.ready();
  } catch (error) {
    await self.stop();
    throw error;
  }
  return self as Stillpoint;
}

/** root starts them as the user that an installation has; anybody else as himself. */
function serviceUser(): { readonly uid: number; readonly gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag: string) => Number(execFileSync("id", [flag, "stillpoint"], { encoding: "utf8" }));
  return { uid: id("-u"), gid: id("-g") };
}

function baseConfig(folder: string): Record<string, unknown> {
  return {
    dataDir: join(folder, "data"),
    listen: { port: 0 },
    repository: { path: join(folder, "repository"), keyFile: join(folder, "keys/repository.key") },
    host: {
      captureDir: join(folder, "capture"),
      pools: [{ name: "main", path: join(folder, "pool") }],
      socketDirs: [folder],
    },
    sizes: { Standard_B1ls: { vcpus: 1, memoryMiB: 256 } },
    log: { level: "debug" },
  };
}

function merged(base: Record<string, unknown>, over: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const isRecord = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  const result = { ...base };
  for (const [name, value] of Object.entries(over)) {
    const present = result[name];
    result[name] = isRecord(present) && isRecord(value) ? merged(present, value) : value;
  }
  return result;
}

/** Processes whose command line names the folder: its guard, service, QEMUs and storage daemons. Not this one. */
function processesNaming(folder: string): readonly number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isSafeInteger(pid) && pid > 1 && pid !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(folder);
      } catch {
        return false;
      }
    });
}

async function endAll(folder: string): Promise<void> {
  for (;;) {
    const left = processesNaming(folder);
    if (left.length === 0) return;
    killAll(left);
    await systemClock.sleep(20);
  }
}

function killAll(pids: readonly number[]): void {
  for (const pid of pids)
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // it ended by itself meanwhile
    }
}
