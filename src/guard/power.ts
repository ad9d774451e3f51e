import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { replaceFile, StillpointError, syncDirectory } from "../base/index.ts";
import { checkMachineSpec, qemuArguments } from "../hypervisors/qemu/index.ts";
import type { GuardOptions } from "./context.ts";
import type { Machine } from "./machine.ts";
import { checkSocketPath, lastWords, type RuntimePaths, spawnQemu } from "./process.ts";
import type { MachineSpec } from "./protocol.ts";

const START_MS = 30_000;
const RESET_MS = 10_000;
const QUIT_MS = 30_000;
const POLL_MS = 20;

/** Run states of a machine whose guest is off. `prelaunch` is the state after a reset while stopped. */
export const OFF = new Set(["shutdown", "prelaunch"]);

/** Starts QEMU, stopped and marked, and then its guest. The spec is durable before the process exists. */
export async function launch(machine: Machine, spec: MachineSpec, paths: RuntimePaths, options: GuardOptions) {
  checkMachineSpec(spec);
  const args = qemuArguments(spec, {
    accelerator: options.accelerator,
    firmwareCode: options.qemu.firmwareCode,
    qmpSocket: checkSocketPath(paths.qmpSocket),
    agentSocket: checkSocketPath(paths.agentSocket),
    consoleSocket: checkSocketPath(paths.consoleSocket),
    pidFile: paths.pidFile,
  });
  await mkdir(paths.folder, { recursive: true, mode: 0o700 });
  await syncDirectory(dirname(paths.folder));
  await replaceFile(paths.spec, JSON.stringify(spec));
  await writeFile(paths.log, "", { mode: 0o600 });
  machine.set({ reason: null });
  const child = await spawnQemu(options.qemu.system, args, paths);
  options.log.info({ vm: spec.vm, pid: child.pid }, "QEMU started");
  let end: string | null = null;
  void child.ended.then(async (how) => {
    end = how;
    const words = await lastWords(paths);
    if (how !== "exit code 0") machine.set({ reason: words ? `${how}: ${words}` : how });
    options.log.info({ vm: spec.vm, pid: child.pid, how }, "QEMU ended");
    await machine.look();
  });
  const deadline = options.clock.monotonicMs() + START_MS;
  for (;;) {
    const failure = await machine.connect().then(
      () => null,
      (error: unknown) => error,
    );
    if (!failure) break;
    if (end !== null) throw startFailed(spec, `${end}: ${await lastWords(paths)}`, failure);
    if (options.clock.monotonicMs() > deadline) throw startFailed(spec, `no monitor within ${START_MS} ms`, failure);
    await options.clock.sleep(POLL_MS);
  }
  await machine.qmp().execute("cont");
  machine.set({ reason: null });
  await machine.refresh();
}

function startFailed(spec: MachineSpec, why: string, cause: unknown): StillpointError {
  return new StillpointError("HypervisorUnavailable", `QEMU did not start for virtual machine ${spec.vm}: ${why}`, {
    cause,
  });
}

/** Lets the guest of a live QEMU run: one that is off or paused begins anew, one that met an error goes on. */
export async function wake(machine: Machine, options: GuardOptions): Promise<void> {
  const status = await machine.refresh();
  if (status === "running" || status === "suspended") return;
  if (status !== "io-error" && status !== "prelaunch") await reset(machine, options);
  await machine.qmp().execute("cont");
  machine.set({ reason: null });
  await machine.refresh();
}

/** Ends the guest at once and leaves its machine as if it had never begun. QEMU, its jobs and its exports stay. */
export async function hardOff(machine: Machine, options: GuardOptions): Promise<void> {
  if (OFF.has(await machine.refresh())) return;
  // Stopping waits for every request in flight and flushes.
  await machine.qmp().execute("stop");
  await reset(machine, options);
  machine.set({ reason: "powered-off" });
}

async function reset(machine: Machine, options: GuardOptions): Promise<void> {
  await machine.qmp().execute("system_reset");
  await untilStatus(machine, options, (status) => status === "prelaunch", RESET_MS);
}

/** Asks the guest to power off by ACPI and waits; false when it had not by then. */
export async function softOff(machine: Machine, options: GuardOptions, graceMs: number): Promise<boolean> {
  if (OFF.has(await machine.refresh())) return true;
  await machine.qmp().execute("system_powerdown");
  return await untilStatus(machine, options, (status) => OFF.has(status), graceMs).then(
    () => true,
    (error) => {
      if ((error as StillpointError).code === "DeadlineExceeded") return false;
      throw error;
    },
  );
}

async function untilStatus(machine: Machine, options: GuardOptions, is: (status: string) => boolean, ms: number) {
  const deadline = options.clock.monotonicMs() + ms;
  while (!is(await machine.refresh())) {
    if (options.clock.monotonicMs() > deadline)
      throw new StillpointError("DeadlineExceeded", `The virtual machine's run state did not change within ${ms} ms.`);
    await options.clock.sleep(POLL_MS);
  }
}

/** Ends QEMU cleanly, so that its persistent bitmaps are written. Returns when the process is gone. */
export async function quit(machine: Machine, options: GuardOptions): Promise<void> {
  const pid = await machine.place.findPid();
  if (typeof pid !== "number") return machine.look();
  machine.set({ reason: "deallocated" });
  // `quit` may close the connection before it answers. A monitor out of reach leaves the signal, which is as clean.
  await Promise.resolve()
    .then(() => machine.qmp().execute("quit"))
    .catch(() => terminate(pid));
  const deadline = options.clock.monotonicMs() + QUIT_MS;
  while ((await machine.place.findPid()) !== null || machine.state().process !== "down") {
    if (options.clock.monotonicMs() > deadline)
      throw new StillpointError("HypervisorUnavailable", `QEMU (pid ${pid}) does not end.`, {
        remedy: "It may hang on its storage. Killing it by hand loses the change tracking since its start.",
      });
    await options.clock.sleep(POLL_MS);
    await machine.look();
  }
}

function terminate(pid: number): void {
  try {
    process.kill(pid, "SIGTERM");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

export async function readSpec(paths: RuntimePaths): Promise<MachineSpec | null> {
  const text = await readFile(paths.spec, "utf8").catch(() => null);
  return text === null ? null : (JSON.parse(text) as MachineSpec);
}

export async function removeRuntime(paths: RuntimePaths): Promise<void> {
  await rm(paths.folder, { recursive: true, force: true });
  await syncDirectory(dirname(paths.folder));
}
