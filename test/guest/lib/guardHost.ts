/** A guard as a process of its own, that tests may kill, with a second monitor into its QEMU for looking and poking. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { MiB, run, systemClock, systemRandom, type VmUid } from "../../../src/base/index.ts";
import { type RunningGuard, runGuard } from "../../../src/guard/index.ts";
import {
  type CaptureId,
  type CaptureState,
  connectGuard,
  type Guard,
  guardSocketPath,
  type MachineDisk,
  type MachineSpec,
  type VmFacts,
  type VmState,
} from "../../../src/guard/protocol.ts";
import { connectQmp, type QmpClient, type QmpEvent } from "../../../src/hypervisors/qmp/index.ts";

const SOURCE_ROOT = join(import.meta.dirname, "../../..");
export const VM = "11111111-1111-4111-8111-111111111111" as VmUid;

const say = (fields: object, message: string) => void (process.env["VERBOSE"] && console.error(message, fields));
const quiet = { info() {}, warn: say, error: say };

export interface GuardHost {
  readonly dir: string;
  readonly captureDir: string;
  readonly guard: Guard;
  /** Starts the guard's process; resolves when it answers, or when it has ended at `crashAt`. */
  start(crashAt?: string): Promise<void>;
  /** What must stay free in the capture folder of a guard in the test's own process; may be changed at any time. */
  readonly spaceRule: { minFreeBytes: number; minFreeRatio: number };
  /** Ends the guard's process. */
  kill(signal: "SIGKILL" | "SIGTERM"): Promise<void>;
  /** Resolves when the guard's process has ended by itself. */
  ended(): Promise<void>;
  readonly pid: () => number;
  /** A monitor of the test's own into the QEMU of {@link VM}. */
  monitor(): Promise<TestMonitor>;
  state(): Promise<VmState>;
  facts(): Promise<VmFacts>;
  capture(id: CaptureId): Promise<CaptureState | undefined>;
  close(): Promise<void>;
}

export interface TestMonitor extends QmpClient {
  readonly events: readonly QmpEvent[];
}

/** The system's QEMU, and Debian trixie's unpacked beside it. */
export function qemuVersions(): readonly { readonly label: string; readonly qemu: string }[] {
  const trixie = "/var/cache/stillpoint/qemu-trixie";
  execFileSync("sh", [join(SOURCE_ROOT, "setup/qemu-trixie.sh"), trixie], { stdio: "inherit" });
  return [
    { label: "QEMU 7.2", qemu: "qemu-system-x86_64" },
    { label: "QEMU 10.0", qemu: `${trixie}/qemu-system-x86_64` },
  ];
}

export interface HostOptions {
  readonly qemu?: string;
  /** Run the guard inside the test: it cannot be killed, but its rules can be changed. */
  readonly inProcess?: boolean;
}

export async function openGuardHost(options: HostOptions = {}): Promise<GuardHost> {
  const dir = await mkdtemp(join(tmpdir(), "sp-guard-"));
  running.add(dir);
  const captureDir = join(dir, "capture");
  for (const name of ["pool", "sockets"]) await mkdir(join(dir, name), { mode: 0o700 });
  const monitorPath = join(dir, "test.qmp");
  const system = [options.qemu ?? "qemu-system-x86_64", "-qmp", `unix:${monitorPath},server=on,wait=off`];
  const configPath = join(dir, "config.yaml");
  const config = {
    dataDir: join(dir, "data"),
    repository: { path: join(dir, "repository"), keyFile: join(dir, "key") },
    host: {
      captureDir,
      pools: [{ name: "main", path: join(dir, "pool") }],
      socketDirs: [join(dir, "sockets")],
      qemu: { system },
    },
  };
  await writeFile(configPath, stringify(config));
  const guard = await connectGuard(guardSocketPath(config.dataDir));
  const spaceRule = { minFreeBytes: 0, minFreeRatio: 0 };
  let child: ChildProcess | null = null;
  let inside: RunningGuard | null = null;

  async function ended(): Promise<void> {
    if (child && child.exitCode === null && child.signalCode === null) await once(child, "exit");
  }

  async function startInside(): Promise<void> {
    const { dataDir } = config;
    const qemu = { system, firmwareCode: "/usr/share/OVMF/OVMF_CODE_4M.fd" };
    const { socketDirs } = config.host;
    const sources = { clock: systemClock, random: systemRandom, log: quiet, probe: () => {} };
    inside = await runGuard({ dataDir, captureDir, socketDirs, qemu, accelerator: "tcg", spaceRule, ...sources });
  }

  async function start(crashAt?: string): Promise<void> {
    if (options.inProcess) return startInside();
    const out = process.env["VERBOSE"] ? "inherit" : "ignore";
    const { STILLPOINT_CRASH_AT: _, ...env } = process.env;
    child = spawn(process.execPath, [join(SOURCE_ROOT, "src/programs/guard.ts"), "--config", configPath], {
      stdio: ["ignore", out, out],
      env: crashAt === undefined ? env : { ...env, STILLPOINT_CRASH_AT: crashAt },
    });
    while (child.exitCode === null && child.signalCode === null) {
      const answered = await guard.call("vm.list", {}, 2_000).then(
        () => true,
        () => false,
      );
      if (answered) return;
      await systemClock.sleep(50);
    }
  }

  async function kill(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    child?.kill(signal);
    await ended();
  }

  const state = async () => {
    const found = (await guard.call("vm.list", {})).find((one) => one.vm === VM);
    if (!found) throw new Error("the guard does not know the VM");
    return found;
  };

  return {
    dir,
    captureDir,
    guard,
    spaceRule,
    start,
    kill,
    ended,
    pid: () => child?.pid ?? 0,
    monitor: () => openMonitor(monitorPath),
    state,
    facts: () => guard.call("vm.inspect", { vm: VM }),
    capture: async (id) => (await guard.call("capture.list", {})).find((one) => one.capture === id),
    close: async () => {
      await guard.close();
      await inside?.close();
      await kill("SIGKILL");
      await endAll(dir);
      await rm(dir, { recursive: true, force: true });
      running.delete(dir);
    },
  };
}

/** Processes that were started with this temporary folder on their command line: guards and QEMUs of the test. */
function processesNaming(folder: string): readonly number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(folder);
      } catch {
        return false; // it has just ended
      }
    })
    .map(Number);
}

function killAll(pids: readonly number[]): void {
  for (const pid of pids)
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // it ended by itself meanwhile
    }
}

async function endAll(folder: string): Promise<void> {
  for (let left = processesNaming(folder); left.length > 0; left = processesNaming(folder)) {
    killAll(left);
    await systemClock.sleep(20);
  }
}

/** Folders whose `close` was not reached yet: a test that is cancelled leaves nothing behind either. */
const running = new Set<string>();
process.once("exit", () => {
  for (const folder of running) {
    killAll(processesNaming(folder));
    rmSync(folder, { recursive: true, force: true });
  }
});
for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => process.exit(1));

async function openMonitor(path: string): Promise<TestMonitor> {
  const events: QmpEvent[] = [];
  const qmp = await connectQmp({ path, onEvent: (event) => events.push(event) });
  return { ...qmp, events };
}

export interface SmallDisk extends Partial<MachineDisk> {
  readonly sizeMiB?: number;
}

/** A machine without an operating system: its firmware waits for a disk it can boot from. */
export async function smallMachine(host: GuardHost, disks: readonly SmallDisk[] = [{}]): Promise<MachineSpec> {
  const made: MachineDisk[] = [];
  for (const [index, { sizeMiB = 64, ...wish }] of disks.entries()) {
    const format = wish.format ?? "qcow2";
    const path = join(host.dir, "pool", `${index}.${format}`);
    await run("qemu-img", ["create", "-q", "-f", format, path, `${sizeMiB * MiB}`], 10_000);
    const node = `d-00000000000${index}`;
    made.push({ node, path, format, bus: "virtio-blk", serial: `disk${index}`, iothread: false, ...wish });
  }
  return {
    vm: VM,
    machineType: "q35",
    cpuModel: "default",
    vcpus: 1,
    memoryMiB: 64,
    firmware: { kind: "bios" },
    disks: made,
    nics: [],
  };
}

/** Waits until `is` holds for what `look` gives; fails with the last look after a minute. */
export async function until<T>(
  what: string,
  look: () => Promise<T>,
  is: (value: T) => boolean,
  ms = 60_000,
): Promise<T> {
  const end = systemClock.monotonicMs() + ms;
  for (;;) {
    const value = await look();
    if (is(value)) return value;
    if (systemClock.monotonicMs() > end) throw new Error(`${what}: not within ${ms} ms, last ${JSON.stringify(value)}`);
    await systemClock.sleep(50);
  }
}
