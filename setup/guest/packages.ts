/** Fetches Debian packages without installing them, and unpacks them. */
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { StillpointError } from "../../src/base/index.ts";
import { run } from "../../src/base/spawn.ts";

const DOWNLOAD_TIMEOUT_MS = 300_000;
const UNPACK_TIMEOUT_MS = 120_000;

/** The package that `meta` depends on and whose name starts with `prefix`. Reads apt's lists; needs no network. */
export async function dependencyOf(meta: string, prefix: string): Promise<string> {
  const { stdout } = await run("apt-cache", ["depends", meta], 60_000);
  const match = stdout.match(new RegExp(`Depends: (${prefix}[^\\s]+)`));
  if (!match?.[1])
    throw new StillpointError("NotFound", `apt knows no package '${prefix}…' that ${meta} depends on.`, {
      remedy: "Run: apt-get update",
    });
  return match[1];
}

/** Downloads the packages into `folder` with apt-get and returns the path of each by its name. */
export async function download(names: readonly string[], folder: string): Promise<ReadonlyMap<string, string>> {
  await mkdir(folder, { recursive: true });
  try {
    // apt writes into its working directory; `sh` is there only to change into it
    await run(
      "sh",
      ["-c", 'cd "$1" && shift && exec apt-get -q download "$@"', "sh", folder, ...names],
      DOWNLOAD_TIMEOUT_MS,
    );
  } catch (error) {
    throw new StillpointError("NotFound", "The guest's Debian packages could not be downloaded.", {
      remedy: "Run: apt-get update",
      cause: error,
    });
  }
  const files = await readdir(folder);
  return new Map(
    names.map((name) => {
      const file = files.find((candidate) => candidate.startsWith(`${name}_`));
      if (!file) throw new StillpointError("NotFound", `apt-get download left no file for ${name}.`);
      return [name, join(folder, file)] as const;
    }),
  );
}

export async function unpack(deb: string, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  await run("dpkg-deb", ["-x", deb, folder], UNPACK_TIMEOUT_MS);
}
