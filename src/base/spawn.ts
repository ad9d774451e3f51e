import { execFile } from "node:child_process";
import { StillpointError } from "./errors.ts";

export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program without a shell and waits for its end. Arguments are ours or checked, never a user's free string.
 * Throws InternalError with the program's last words when it fails, DeadlineExceeded after `timeoutMs` (it is killed).
 */
export function run(program: string, args: readonly string[], timeoutMs: number): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    execFile(
      program,
      [...args],
      {
        timeout: timeoutMs,
        killSignal: "SIGKILL",
        maxBuffer: 64 * 1024 * 1024,
        env: { PATH: process.env["PATH"], LC_ALL: "C" },
      },
      (error, stdout, stderr) => {
        if (!error) return resolve({ stdout, stderr });
        const words = stderr.trim().split("\n").slice(-3).join(" ") || error.message;
        const code = error.killed ? "DeadlineExceeded" : "InternalError";
        reject(new StillpointError(code, `${program} failed: ${words}`, { cause: error }));
      },
    );
  });
}
