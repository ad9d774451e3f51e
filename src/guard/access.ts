import { lstat, stat } from "node:fs/promises";
import { connect } from "node:net";
import { dirname } from "node:path";
import { bytes, MiB, StillpointError } from "../base/index.ts";
import { QmpError } from "../hypervisors/qmp/index.ts";
import type { CaptureTools } from "./entries.ts";
import type { Machine } from "./machine.ts";
import type { CaptureId } from "./protocol.ts";
import { makeCaptureFolder, makeScratch, removeCaptureFolder } from "./scratch.ts";

const GROUP = "stillpoint-capture";

/**
 * Whether a QEMU that runs as somebody else can do what a capture asks of it: open a file of ours in the capture folder
 * for writing, and make a socket there that we can connect to. Throws OperationNotAllowed with the commands that mend it.
 */
export async function tryCaptureFolder(tools: CaptureTools, machine: Machine): Promise<void> {
  const { options } = tools;
  const trial = `trial-${machine.place.vm}` as CaptureId;
  const size = bytes(MiB);
  try {
    await makeCaptureFolder(options, trial);
    const request = { name: "0", kind: "fleece", virtualSizeBytes: size, reserveBytes: size } as const;
    await openInQemu(machine, await makeScratch(options, trial, request));
    await tryServer(tools, machine);
  } catch (error) {
    if (!(error instanceof QmpError) && !(error instanceof Unreachable)) throw error;
    throw new StillpointError(
      "OperationNotAllowed",
      `QEMU cannot work in the capture folder ${options.captureDir} (${error.message})`,
      { cause: error, remedy: await commands(options.captureDir, machine.place.qmpSocket) },
    );
  } finally {
    await removeCaptureFolder(options, trial);
  }
}

async function openInQemu(machine: Machine, filename: string): Promise<void> {
  const node = `sp-trial-${machine.place.vm.slice(0, 8)}`;
  await machine.qmp().execute("blockdev-add", { driver: "file", "node-name": node, filename });
  await machine.qmp().execute("blockdev-del", { "node-name": node });
}

const PROBE_MS = 5_000;

class Unreachable extends Error {}

async function tryServer({ nbd }: CaptureTools, machine: Machine): Promise<void> {
  // Beside somebody else's server disks are pushed, and no socket of ours is needed.
  if (!(await nbd.available(machine))) return;
  try {
    await connects(await nbd.start(machine));
  } finally {
    await nbd.stop(machine);
  }
}

/** The client's flags, then NBD_OPT_ABORT without data: a goodbye that QEMU does not complain of in its owner's log. */
const GOODBYE = Buffer.from("0000000349484156454f50540000000200000000", "hex");

function connects(path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const probe = connect({ path });
    probe.once("data", () => probe.end(GOODBYE));
    // What is sent back has to be read, or the connection never ends.
    probe.on("data", () => {});
    probe.setTimeout(PROBE_MS, () => {
      probe.destroy();
      reject(new Unreachable(`the socket it made there did not answer within ${PROBE_MS} ms`));
    });
    probe.once("close", () => resolve());
    probe.once("error", (error: NodeJS.ErrnoException) =>
      reject(new Unreachable(`the socket it made there cannot be used by Stillpoint: ${error.code}`)),
    );
  });
}

/** A monitor's socket belongs to the user QEMU runs as, which QMP itself does not tell. */
async function commands(captureDir: string, qmpSocket: string): Promise<string> {
  const { uid } = await lstat(qmpSocket);
  const ours = process.getuid?.() ?? 0;
  const closed = [];
  for (let folder = dirname(captureDir); folder !== "/"; folder = dirname(folder))
    if (((await stat(folder)).mode & 0o001) === 0) closed.push(`chmod a+x ${quote(folder)}`);
  return [
    "As root run:",
    [
      `groupadd -f ${GROUP}`,
      `usermod -aG ${GROUP} "$(id -nu ${uid})"`,
      `usermod -aG ${GROUP} "$(id -nu ${ours})"`,
      `chgrp ${GROUP} ${quote(captureDir)}`,
      `chmod 2770 ${quote(captureDir)}`,
      `setfacl -d -m g::rwx ${quote(captureDir)}`,
      ...closed,
    ].join("; "),
    "- then restart stillpoint-guard and this QEMU.",
  ].join(" ");
}

function quote(path: string): string {
  return `'${path.replaceAll("'", "'\\''")}'`;
}
