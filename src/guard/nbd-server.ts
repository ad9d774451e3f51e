import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { StillpointError, type VmUid } from "../base/index.ts";
import { jsonList } from "../hypervisors/qemu/index.ts";
import { QmpError } from "../hypervisors/qmp/index.ts";
import type { GuardOptions } from "./context.ts";
import type { Machine } from "./machine.ts";
import { nbdSocketPath } from "./scratch.ts";

/** QEMU's NBD servers, one per process. Ours is the one on our socket; any other is never touched. */
export interface NbdServers {
  /** Starts it, or finds it running. OperationNotAllowed when somebody else's runs there. */
  start(machine: Machine): Promise<string>;
  /** Whether ours runs or could: tried, and stopped again when it was not needed before. */
  available(machine: Machine): Promise<boolean>;
  /** Stops ours unless it still exports something. Not running: fine. */
  stop(machine: Machine): Promise<void>;
  /** The process is gone, and its server with it. */
  forget(vm: VmUid): Promise<void>;
  socketOf(vm: VmUid): string | null;
}

class ForeignServer extends StillpointError {}

export function createNbdServers(options: GuardOptions): NbdServers {
  const path = (vm: VmUid) => nbdSocketPath(options, vm);
  // QEMU removes the socket when its server stops, so the file says whether ours runs.
  const running = (vm: VmUid) => existsSync(path(vm));

  async function start(machine: Machine): Promise<string> {
    const { vm } = machine.place;
    const addr = { type: "unix", data: { path: path(vm) } };
    try {
      // No limit of clients: they are ours alone, behind a folder of mode 0700.
      if (!running(vm)) await machine.qmp().execute("nbd-server-start", { addr, "max-connections": 0 });
    } catch (error) {
      if (!(error instanceof QmpError) || !error.description.includes("already running")) throw error;
      throw new ForeignServer("OperationNotAllowed", "An NBD server that is not Stillpoint's runs in this QEMU.", {
        cause: error,
        remedy: "QEMU has one at most; stop the other one with nbd-server-stop.",
      });
    }
    return path(vm);
  }

  async function stop(machine: Machine): Promise<void> {
    if (!running(machine.place.vm)) return;
    const exports = jsonList(await machine.qmp().execute("query-block-exports"));
    if (exports.length === 0) await machine.qmp().execute("nbd-server-stop");
  }

  async function available(machine: Machine): Promise<boolean> {
    if (running(machine.place.vm)) return true;
    try {
      await start(machine);
    } catch (error) {
      if (error instanceof ForeignServer) return false;
      throw error;
    }
    await stop(machine);
    return true;
  }

  return {
    start,
    available,
    stop,
    forget: (vm) => rm(path(vm), { force: true }),
    socketOf: (vm) => (running(vm) ? path(vm) : null),
  };
}
