import { type ChildProcess, spawn } from "node:child_process";
import { StillpointError, withDeadline } from "../../base/index.ts";

/** A running qemu-storage-daemon that has set everything up. */
export interface Daemon {
  /** Ends it as gently as it lets us (its images are closed cleanly), and waits until it is gone. May be called again. */
  close(): Promise<void>;
}

const READY_TIMEOUT_MS = 20_000;
/** A writable qcow2 writes its cached tables when it is closed. */
const CLOSE_TIMEOUT_MS = 30_000;
const MAX_ERROR_CHARS = 4096;

/**
 * The kernel kills the daemon when the service dies (`--pdeathsig`), or a dead service would leave images locked. The
 * shell in between closes the one gap: a service that died before the signal was armed is no longer the parent.
 */
const GUARDED = ["--pdeathsig", "KILL", "--no-new-privs", "sh", "-c", '[ "$PPID" = "$0" ] || exit 1; exec "$@"'];

/**
 * Starts the daemon and waits for its monitor's greeting on stdout: QEMU gives it only after all options were carried
 * out. Throws what the daemon said when it refuses, DeadlineExceeded when it hangs.
 */
export async function startDaemon(program: string, args: readonly string[]): Promise<Daemon> {
  const monitor = ["--chardev", "stdio,id=control,signal=off", "--monitor", "chardev=control"];
  const child = spawn("setpriv", [...GUARDED, String(process.pid), program, ...args, ...monitor], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { PATH: process.env["PATH"], LC_ALL: "C" },
  });
  const said = lastWords(child);
  const gone = new Promise<void>((resolve) => {
    child.once("close", () => resolve());
    child.once("error", () => resolve());
  });
  const end = () => endChild(child, gone);
  try {
    await withDeadline(READY_TIMEOUT_MS, "The storage daemon's readiness", () => greeting(child, gone, said));
    return { close: end };
  } catch (error) {
    child.kill("SIGKILL");
    await gone;
    throw error;
  }
}

function greeting(child: ChildProcess, gone: Promise<void>, said: () => string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.stdout?.on("data", () => resolve());
    child.once("error", (error) => {
      const remedy = "Install qemu-system-common and util-linux.";
      reject(
        new StillpointError("InternalError", `The storage daemon cannot be started: ${error.message}.`, { remedy }),
      );
    });
    void gone.then(() =>
      reject(new StillpointError("InternalError", `The storage daemon ended: ${said() || "no reason given"}`)),
    );
  });
}

async function endChild(child: ChildProcess, gone: Promise<void>): Promise<void> {
  child.kill("SIGTERM");
  try {
    await withDeadline(CLOSE_TIMEOUT_MS, "The storage daemon's end", () => gone);
  } catch {
    child.kill("SIGKILL");
    await gone;
  }
}

/** The end of what it wrote to stderr, bounded. */
function lastWords(child: ChildProcess): () => string {
  let text = "";
  child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
    text = (text + chunk).slice(-MAX_ERROR_CHARS);
  });
  child.stdin?.on("error", () => {});
  return () =>
    text
      .trim()
      .replaceAll(/[^\x20-\x7e\n]/g, "?")
      .split("\n")
      .slice(-3)
      .join(" ");
}
