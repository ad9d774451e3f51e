import { lstat, realpath } from "node:fs/promises";
import { dirname, isAbsolute } from "node:path";
import { StillpointError, type VmUid } from "../base/index.ts";
import { tryCaptureFolder } from "./access.ts";
import { checkStep } from "./allowed.ts";
import { type CaptureTools, capturesOf } from "./entries.ts";
import { type Machine, type MachinePlace, unmarkIncarnation } from "./machine.ts";
import type { Machines } from "./machines.ts";
import type { QmpStep } from "./protocol.ts";
import { runAllSteps } from "./steps.ts";

export function adoptedPlace(
  vm: VmUid,
  sockets: { readonly qmpSocket: string; readonly qgaSocket: string | null },
): MachinePlace {
  const { qmpSocket, qgaSocket } = sockets;
  return { vm, kind: "adopted", qmpSocket, agentSocket: qgaSocket, findPid: async () => undefined };
}

interface AdoptParams {
  readonly vm: VmUid;
  readonly qmpSocket: string;
  readonly qgaSocket: string | null;
}

/** Takes a QEMU that somebody else has started under guard. Repeatable with the same sockets. */
export async function adopt(
  tools: CaptureTools,
  params: AdoptParams,
  guard: (place: MachinePlace) => Machine,
): Promise<void> {
  const { options, book, machines } = tools;
  const { vm, qmpSocket, qgaSocket } = params;
  await checkSocket("qmpSocket", qmpSocket, options.socketDirs);
  if (qgaSocket !== null) await checkSocket("qgaSocket", qgaSocket, options.socketDirs);
  const known = machines.find(vm);
  if (known && (known.place.qmpSocket !== qmpSocket || known.place.agentSocket !== qgaSocket))
    throw new StillpointError("Conflict", `The virtual machine ${vm} is guarded at other sockets.`);
  const machine = known ?? guard(adoptedPlace(vm, { qmpSocket, qgaSocket }));
  try {
    await machine.connect();
    if (known) return;
    await machine.exclusively(() => tryCaptureFolder(tools, machine));
    await book.note({ t: "adopted", vm, qmpSocket, qgaSocket });
  } catch (error) {
    if (!known) await letGo(machine, machines);
    throw error;
  }
}

/** An adoption that failed leaves nothing either. */
async function letGo(machine: Machine, machines: Machines): Promise<void> {
  if (machine.state().process === "up") await unmarkIncarnation(machine.qmp()).catch(() => {});
  machines.remove(machine.place.vm);
}

/** Takes every trace of ours out of an adopted QEMU and lets its sockets go. Unknown: fine. */
export async function release(tools: CaptureTools, vm: VmUid, steps: readonly QmpStep[]): Promise<void> {
  const { options, book, machines, nbd } = tools;
  const machine = machines.find(vm);
  if (!machine) return;
  if (machine.place.kind !== "adopted")
    throw new StillpointError("OperationNotAllowed", "Only an adopted virtual machine can be released.");
  for (const step of steps) checkStep(step, new Set(), "step");
  await machine.exclusively(async () => {
    if (capturesOf(book, vm).length > 0)
      throw new StillpointError("OperationNotAllowed", "A point of the virtual machine is being taken.", {
        remedy: "Wait for it, or delete it.",
      });
    await machine.look();
    if (machine.state().process !== "down") {
      const failure = await runAllSteps(machine.qmp(), steps, options);
      if (failure !== null)
        throw new StillpointError("InternalError", `Not everything could be taken away: ${failure}`);
      await nbd.stop(machine);
      await unmarkIncarnation(machine.qmp());
    }
    await book.note({ t: "released", vm });
    machines.remove(vm);
  });
}

/** The socket must lie below a configured folder, links resolved, so that no request can make the guard talk to others. */
async function checkSocket(target: string, path: string, folders: readonly string[]): Promise<void> {
  const refuse = (why: string) =>
    new StillpointError("InvalidParameter", `The socket ${path} ${why}.`, {
      target,
      remedy: `Sockets are accepted below host.socketDirs (${folders.join(", ") || "none configured"}).`,
    });
  if (!isAbsolute(path) || path.includes("\0") || path.split("/").includes(".."))
    throw refuse("is not an absolute path");
  const folder = await realpath(dirname(path)).catch(() => {
    throw refuse("is in no folder that can be read");
  });
  const roots = await Promise.all(folders.map((root) => realpath(root).catch(() => root)));
  if (!roots.some((root) => folder === root || folder.startsWith(`${root}/`))) throw refuse("is outside them");
  const found = await lstat(path).catch(() => {
    throw refuse("does not exist");
  });
  if (!found.isSocket()) throw refuse("is no socket");
}
