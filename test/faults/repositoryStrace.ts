/** Real system calls, as strace tells them. */
import { execFile, spawnSync } from "node:child_process";
import { type Op, relativeTo } from "./repositoryCrashModel.ts";

/** Why strace cannot be used here, or null. */
export function straceMissing(): string | null {
  const tried = spawnSync("strace", ["-o", "/dev/null", "true"], { encoding: "utf8" });
  if (tried.error) return "strace is not installed";
  return tried.status === 0 ? null : `strace cannot trace here: ${tried.stderr.trim()}`;
}

export interface Traced {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

/** Runs a script of ours under strace. One thread for files: its calls then follow one another. */
export function traced(straceArgs: readonly string[], script: string, args: readonly string[]): Promise<Traced> {
  return new Promise((resolve, reject) => {
    const all = ["-f", ...straceArgs, process.execPath, script, ...args];
    const options = {
      env: { ...process.env, UV_THREADPOOL_SIZE: "1" },
      timeout: 120_000,
      maxBuffer: 256 * 1024 * 1024,
    };
    execFile("strace", all, options, (error, stdout, stderr) => {
      if (error && typeof error.code !== "number") reject(error);
      else resolve({ stdout, stderr, code: typeof error?.code === "number" ? error.code : 0 });
    });
  });
}

export const TRACED_CALLS =
  "openat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat";

/** The calls on files below `root`, and the lines written to `marks`, in the order in which they ended. */
export function parseTrace(text: string, root: string, marks: string): Op[] {
  const ops: Op[] = [];
  const position = new Map<string, number>();
  const begun = new Map<string, string>();
  for (const line of text.split("\n")) {
    const [, pid, rest] = /^(\d+)\s+(.*)$/.exec(line) ?? [];
    if (!pid || !rest) continue;
    const unfinished = /^(.*) <unfinished \.\.\.>$/.exec(rest);
    if (unfinished) begun.set(pid, unfinished[1] as string);
    else {
      const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest);
      const call = resumed ? `${begun.get(pid) ?? ""}${resumed[1]}` : rest;
      const op = parseCall(call, root, marks, position);
      if (op) ops.push(op);
    }
  }
  return ops;
}

function parseCall(call: string, root: string, marks: string, position: Map<string, number>): Op | null {
  const [, name, args, result] = /^(\w+)\((.*)\)\s+= (-?\d+)/.exec(call) ?? [];
  if (!name || args === undefined || Number(result) < 0) return null;
  const strings = [...args.matchAll(/"((?:\\x[0-9a-f]{2})*)"/g)].map((match) => unhex(match[1] as string));
  const file = unhex(/^\d+<([^>]*)>/.exec(args)?.[1] ?? "").toString();
  const inside = (path: string | undefined) => (path === undefined ? null : relativeTo(root, path));
  const paths = strings.map((path) => inside(path.toString()));
  switch (name) {
    case "openat":
      return args.includes("O_CREAT") && paths[0] ? { op: "create", path: paths[0] } : null;
    case "write":
    case "writev":
    case "pwrite64":
    case "pwritev":
    case "pwritev2": {
      const data = Buffer.concat(strings).subarray(0, Number(result));
      if (file === marks) return { op: "mark", name: data.toString().trim() };
      const path = inside(file);
      if (!path) return null;
      const place = (name === "pwritev2" ? /, (\d+), \w+$/ : /, (\d+)$/).exec(args)?.[1];
      const at = name.startsWith("p") ? Number(place) : (position.get(path) ?? 0);
      position.set(path, at + data.length);
      return { op: "write", path, position: at, data };
    }
    case "fsync":
    case "fdatasync":
      return syncOp(inside(file), position);
    case "rename":
    case "renameat":
    case "renameat2":
      return paths[0] && paths[1] ? { op: "rename", from: paths[0], to: paths[1] } : null;
    case "link":
    case "linkat":
      return paths[0] && paths[1] ? { op: "link", from: paths[0], to: paths[1] } : null;
    case "unlink":
    case "unlinkat":
      return paths[0] ? { op: "unlink", path: paths[0] } : null;
    case "mkdir":
    case "mkdirat":
      return paths[0] ? { op: "mkdir", path: paths[0] } : null;
    default:
      return null;
  }
}

/** Files are told from directories by having been written to. */
function syncOp(path: string | null, position: ReadonlyMap<string, number>): Op | null {
  if (path === null) return null;
  return position.has(path) ? { op: "sync-file", path } : { op: "sync-directory", path };
}

function unhex(escaped: string): Buffer {
  return /^(\\x[0-9a-f]{2})*$/.test(escaped) ? Buffer.from(escaped.replaceAll("\\x", ""), "hex") : Buffer.from(escaped);
}
