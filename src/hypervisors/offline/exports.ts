import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Random, StillpointError } from "../../base/index.ts";
import { imageFacts } from "../../images/index.ts";
import { type Daemon, startDaemon } from "./daemon.ts";

export interface OfflineImage {
  /** Confined already (see images). */
  readonly path: string;
  readonly format: "raw" | "qcow2";
  readonly writable: boolean;
  /** Names of persistent dirty bitmaps to offer as `qemu:dirty-bitmap:NAME`; qcow2, read-only. */
  readonly bitmaps?: readonly string[];
}

/** An image on a private NBD socket. */
export interface OfflineExport {
  readonly socketPath: string;
  readonly exportName: string;
  /** Ends the daemon and waits for it: the image is closed, its lock free. Close NBD clients before. May be called again. */
  close(): Promise<void>;
}

/** Images that no VM has open, served by a qemu-storage-daemon each. The daemons die with this process. */
export interface OfflineExports {
  /**
   * Throws OperationNotAllowed when another process has the image open in a way that forbids it, InvalidParameter when
   * the image is unfit. While it is open, QEMU's own locks keep others from writing (or, writable, from opening) it.
   */
  open(image: OfflineImage): Promise<OfflineExport>;
}

export interface OfflineOptions {
  /** Folder for the sockets, 0700, for this purpose only; what a killed service left in it is removed. Keep it short. */
  readonly runDir: string;
  readonly random: Random;
  /** Default `qemu-storage-daemon`. */
  readonly program?: string;
}

/** Longest path of a unix socket on Linux. */
const MAX_SOCKET_PATH = 107;
const EXPORT_NAME = "disk";

export async function createOfflineExports(options: OfflineOptions): Promise<OfflineExports> {
  const { runDir, random } = options;
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  for (const name of await readdir(runDir)) if (name.endsWith(".nbd")) await rm(join(runDir, name));
  return {
    async open(image) {
      const socketPath = join(runDir, `${random.bytes(6).toString("hex")}.nbd`);
      if (Buffer.byteLength(socketPath) > MAX_SOCKET_PATH)
        throw new StillpointError(
          "InternalError",
          `The socket path ${socketPath} is longer than ${MAX_SOCKET_PATH} bytes.`,
        );
      // QEMU would follow what a header names (data file); our parser refuses it first.
      if (image.format === "qcow2") await imageFacts(image.path, "qcow2");
      const program = options.program ?? "qemu-storage-daemon";
      const daemon = await start(program, image, socketPath);
      const close = async () => {
        await daemon.close();
        await rm(socketPath, { force: true });
      };
      return { socketPath, exportName: EXPORT_NAME, close };
    },
  };
}

/**
 * Writes go around the page cache where the file system lets them: a new 2 GiB qcow2 filled with 1 MiB writes took
 * 1.9 s so and 4-7 s through the cache (which also pushes the guests' pages out).
 */
async function start(program: string, image: OfflineImage, socketPath: string): Promise<Daemon> {
  try {
    return await startDaemon(program, daemonArgs(image, socketPath, image.writable)).catch((error: StillpointError) => {
      if (!image.writable || !error.message.includes("O_DIRECT")) throw error;
      return startDaemon(program, daemonArgs(image, socketPath, false));
    });
  } catch (error) {
    throw explained(image, error as StillpointError);
  }
}

/**
 * An NBD export lets others write (qcow2 forbids it by itself, raw does not), so a QEMU that starts while a raw disk is
 * copied would change it under the copy. This filter takes the missing locks; measured, it costs no throughput.
 */
const SOLE_WRITER = { driver: "blkdebug", image: "file", "unshare-child-perms": ["write", "resize"] };

/** All values as JSON: no name of a file can become an option. The format is told, a backing file is never opened. */
function daemonArgs(image: OfflineImage, socketPath: string, direct: boolean): readonly string[] {
  const readOnly = !image.writable;
  const file = {
    driver: "file",
    "node-name": "file",
    filename: image.path,
    locking: "on",
    "read-only": readOnly,
    discard: "unmap",
    cache: { direct },
  };
  const disk = {
    "node-name": "disk",
    "read-only": readOnly,
    discard: "unmap",
    ...(image.format === "qcow2"
      ? { driver: "qcow2", file: "file", backing: null }
      : { driver: "raw", file: SOLE_WRITER }),
  };
  const server = { addr: { type: "unix", path: socketPath }, "max-connections": 4 };
  const exported = {
    type: "nbd",
    id: "export",
    "node-name": "disk",
    name: EXPORT_NAME,
    writable: image.writable,
    ...(image.bitmaps?.length ? { bitmaps: image.bitmaps } : {}),
  };
  return [
    ...["--blockdev", JSON.stringify(file), "--blockdev", JSON.stringify(disk)],
    ...["--nbd-server", JSON.stringify(server), "--export", JSON.stringify(exported)],
  ];
}

function explained(image: OfflineImage, error: StillpointError): StillpointError {
  if (/Failed to get .*lock/.test(error.message))
    return new StillpointError("OperationNotAllowed", `The image ${image.path} is in use by another process.`, {
      remedy: "Stop the program that has it open (often another QEMU), then repeat.",
      cause: error,
    });
  return new StillpointError(error.code, `The image ${image.path} cannot be opened. ${error.message}`, {
    cause: error,
  });
}
