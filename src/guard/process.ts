import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { readFile, stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { StillpointError } from "../base/index.ts";

/** The runtime folder of an own VM: everything by which a later guard finds it. */
export interface RuntimePaths {
  readonly folder: string;
  readonly spec: string;
  readonly pidFile: string;
  readonly qmpSocket: string;
  readonly agentSocket: string;
  readonly consoleSocket: string;
  readonly log: string;
}

/** A unix socket's name may have 107 bytes. */
const MAX_SOCKET_PATH = 107;

export function runtimePaths(dataDir: string, vm: string): RuntimePaths {
  const folder = join(dataDir, "vms", vm);
  return {
    folder,
    spec: join(folder, "spec.json"),
    pidFile: join(folder, "qemu.pid"),
    qmpSocket: join(folder, "qmp.sock"),
    agentSocket: join(folder, "qga.sock"),
    consoleSocket: join(folder, "console.sock"),
    log: join(folder, "qemu.log"),
  };
}

/** Throws InvalidParameter for a path that no socket can have. */
export function checkSocketPath(path: string): string {
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH) return path;
  throw new StillpointError("InvalidParameter", `The socket path ${path} is longer than ${MAX_SOCKET_PATH} bytes.`, {
    remedy: "Choose a shorter dataDir or captureDir.",
  });
}

/**
 * The pid of the QEMU that serves this folder, or null. QEMU writes and locks the pid file itself, early in its life;
 * a process counts only if its command line names that file, so a pid that was used again is never mistaken for it.
 */
export async function findQemu(paths: RuntimePaths): Promise<number | null> {
  const pid = Number((await readFile(paths.pidFile, "utf8").catch(() => "")).trim());
  if (!Number.isSafeInteger(pid) || pid <= 1) return null;
  return (await runs(pid, paths)) ? pid : null;
}

async function runs(pid: number, paths: RuntimePaths): Promise<boolean> {
  const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return commandLine.split("\0").includes(paths.pidFile);
}

/** A QEMU that this guard has started. */
export interface Child {
  readonly pid: number;
  /** Resolves with QEMU's end, in words. */
  readonly ended: Promise<string>;
}

/** Starts QEMU in a session of its own, holding nothing of the guard: it outlives it. */
export function spawnQemu(program: readonly string[], args: readonly string[], paths: RuntimePaths): Promise<Child> {
  const [command, ...leading] = program;
  if (command === undefined) throw new StillpointError("InvalidParameter", "host.qemu.system is empty.");
  // Appending, so that cutting the file short while QEMU holds it leaves no hole.
  const log = openSync(paths.log, "a", 0o600);
  try {
    const child = spawn(command, [...leading, ...args], {
      cwd: paths.folder,
      detached: true,
      stdio: ["ignore", log, log],
      env: { PATH: process.env["PATH"], LC_ALL: "C" },
    });
    child.unref();
    const ended = new Promise<string>((resolve) => {
      child.once("exit", (code, signal) => resolve(signal ? `ended by ${signal}` : `exit code ${code}`));
    });
    return new Promise((resolve, reject) => {
      child.once("error", (cause) =>
        reject(
          new StillpointError("HypervisorUnavailable", `${command} could not be started: ${cause.message}.`, { cause }),
        ),
      );
      child.once("spawn", () => resolve({ pid: child.pid as number, ended }));
    });
  } finally {
    closeSync(log);
  }
}

const LOG_MAX_BYTES = 256 * 1024;

/** What QEMU prints can be provoked by its guest; so the log is emptied before it can fill a disk. */
export async function boundLog(paths: RuntimePaths): Promise<void> {
  const size = await stat(paths.log).then(
    (found) => found.size,
    () => 0,
  );
  if (size > LOG_MAX_BYTES) await truncate(paths.log, 0);
}

/** QEMU's last words, for an error message. */
export async function lastWords(paths: RuntimePaths): Promise<string> {
  const text = await readFile(paths.log, "utf8").catch(() => "");
  const lines = text
    .trim()
    .split("\n")
    .filter((line) => !/warning:/.test(line));
  return lines.slice(-2).join(" ").slice(-500);
}
