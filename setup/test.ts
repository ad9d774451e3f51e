/**
 * `node setup/test.ts test|long [FILES]`: runs node's own test runner, and adds the counts to the file that
 * STILLPOINT_COUNTS names. Exit code 0 only when tests ran and none failed.
 */
import { spawn } from "node:child_process";
import { globSync } from "node:fs";
import { join } from "node:path";

const GLOBS = {
  test: ["src/**/*.test.ts", "test/**/*.test.ts", "setup/**/*.test.ts", "bench/**/*.test.ts"],
  long: ["test/**/*.long.ts"],
} as const;
/** Two cores; most of a guest test is waiting for an emulated machine. */
const CONCURRENCY = 2;
/** No test may hang a run: longer than the slowest of each kind under a loaded machine. */
const TIMEOUT_MS = { test: 10 * 60_000, long: 40 * 60_000 } as const;

const [mode, ...files] = process.argv.slice(2);
if (mode !== "test" && mode !== "long") throw new Error("usage: node setup/test.ts test|long [FILES]");
const chosen = files.length > 0 ? files : GLOBS[mode].flatMap((glob) => globSync(glob));
if (chosen.length === 0) {
  console.error("no test file was found");
  process.exit(1);
}
const counts = process.env["STILLPOINT_COUNTS"];
const child = spawn(
  process.execPath,
  [
    "--test",
    `--test-concurrency=${CONCURRENCY}`,
    `--test-timeout=${TIMEOUT_MS[mode]}`,
    ...["--test-reporter=spec", "--test-reporter-destination=stdout"],
    ...(counts
      ? [`--test-reporter=${join(import.meta.dirname, "counts.ts")}`, `--test-reporter-destination=${counts}`]
      : []),
    ...chosen.sort(),
  ],
  { stdio: ["ignore", "inherit", "inherit"] },
);
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => child.kill(signal));
child.on("exit", (code, signal) => process.exit(signal ? 1 : (code ?? 1)));
