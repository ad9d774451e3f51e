/** Starts, finds and stops guard and service of one site, as child processes that outlive their starter. */
import { spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, StillpointError } from "../../base/index.ts";
import { type ApiClient, openClient } from "./client.ts";

export type DaemonName = "guard" | "service";

/** One installation's running parts: program, configuration, and where its logs and process ids are kept. */
export interface Site {
  /** Folder with `src` and `node_modules`. */
  readonly program: string;
  readonly config: string;
  /** Of the configuration: `client.json` appears there. */
  readonly dataDir: string;
  /** Holds `guard.log`, `service.log`, `guard.pid`, `service.pid`. */
  readonly runDir: string;
  /** To start them as another user; needs root. */
  readonly user?: { readonly uid: number; readonly gid: number };
  readonly env?: Readonly<Record<string, string>>;
}

const STOP_TIMEOUT_MS = 20_000;
const START_TIMEOUT_MS = 90_000;

export const logOf = (site: Site, name: DaemonName) => join(site.runDir, `${name}.log`);

/** The pid of the running guard or service of this site, or null. A pid that was used again is not mistaken for it. */
export function findDaemon(site: Site, name: DaemonName): number | null {
  const file = join(site.runDir, `${name}.pid`);
  const pid = existsSync(file) ? Number(readFileSync(file, "utf8")) : Number.NaN;
  if (!Number.isSafeInteger(pid) || pid <= 1) return null;
  return commandLine(pid).includes(`${name}.ts`) && commandLine(pid).includes(site.config) ? pid : null;
}

function commandLine(pid: number): string {
  try {
    // a process that has ended but was not waited for yet has an empty command line
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

/** Starts one of the two and returns its pid. Not yet ready when this returns. */
export async function startDaemon(site: Site, name: DaemonName): Promise<number> {
  const log = openSync(logOf(site, name), "a", 0o600);
  try {
    const node = join(site.program, "node_modules/.bin/node");
    const child = spawn(node, [join(site.program, `src/programs/${name}.ts`), "--config", site.config], {
      cwd: "/",
      detached: true,
      stdio: ["ignore", log, log],
      env: {
        PATH: process.env["PATH"],
        LC_ALL: "C",
        // Compiled once: the guard needs half the memory (57 MB against 32 MB, measured).
        NODE_COMPILE_CACHE: join(site.dataDir, "compile-cache"),
        ...site.env,
      },
      ...site.user,
    });
    child.unref();
    const pid = await new Promise<number>((resolve, reject) => {
      child.once("spawn", () => resolve(child.pid ?? 0));
      child.once("error", reject);
    });
    await writeFile(join(site.runDir, `${name}.pid`), `${pid}\n`);
    return pid;
  } finally {
    closeSync(log);
  }
}

/** A client of the service, once it says it is ready. Throws with the log's last words when one of the two ended. */
export async function waitUntilReady(site: Site, clock: Clock): Promise<ApiClient> {
  const clientFile = join(site.dataDir, "client.json");
  const endsMs = clock.monotonicMs() + START_TIMEOUT_MS;
  for (;;) {
    for (const name of ["guard", "service"] as const)
      if (findDaemon(site, name) === null)
        throw new StillpointError("InternalError", `The ${name} ended: ${await lastWords(site, name)}`, {
          remedy: `See ${logOf(site, name)}.`,
        });
    if (existsSync(clientFile)) {
      const client = await openClient(clientFile, clock);
      if (await client.ready().catch(() => false)) return client;
      client.close();
    }
    if (clock.monotonicMs() > endsMs)
      throw new StillpointError("DeadlineExceeded", `The service was not ready within ${START_TIMEOUT_MS} ms.`, {
        remedy: `See ${logOf(site, "service")}.`,
      });
    await clock.sleep(100);
  }
}

/** Asks it to end and waits; after 20 s it is killed. The VMs of a stopped guard run on. */
export async function stopDaemon(site: Site, name: DaemonName, clock: Clock): Promise<void> {
  const pid = findDaemon(site, name);
  if (pid === null) return;
  process.kill(pid, "SIGTERM");
  const endsMs = clock.monotonicMs() + STOP_TIMEOUT_MS;
  while (findDaemon(site, name) !== null) {
    if (clock.monotonicMs() > endsMs) process.kill(pid, "SIGKILL");
    await clock.sleep(50);
  }
  await rm(join(site.runDir, `${name}.pid`), { force: true });
}

export async function lastWords(site: Site, name: DaemonName): Promise<string> {
  const text = await readFile(logOf(site, name), "utf8").catch(() => "");
  return text.trim().split("\n").slice(-5).join("\n") || "it said nothing.";
}
