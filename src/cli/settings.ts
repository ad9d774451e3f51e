import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CliFailure } from "./failure.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Where the service is and how to prove who asks. */
export interface Connection {
  readonly url: string;
  readonly token: string;
  readonly ca: string;
}

export interface ConnectionFlags {
  readonly url?: string | undefined;
  readonly tokenFile?: string | undefined;
  readonly caFile?: string | undefined;
  readonly dataDir?: string | undefined;
}

export const DEFAULT_SUBSCRIPTION = "00000000-0000-0000-0000-000000000001";
const DEFAULT_DATA_DIR = "/var/lib/stillpoint";

/**
 * Flags win over the environment, and that over `{dataDir}/client.json`, which the service writes at each start.
 * Throws a failure that names the file it could not read and what to do.
 */
export function connectionOf(flags: ConnectionFlags, env: Environment): Connection {
  const dataDir = flags.dataDir ?? env["STILLPOINT_DATA_DIR"] ?? DEFAULT_DATA_DIR;
  const given = {
    url: flags.url ?? env["STILLPOINT_URL"],
    tokenFile: flags.tokenFile ?? env["STILLPOINT_TOKEN_FILE"],
    caFile: flags.caFile ?? env["STILLPOINT_CA_FILE"],
  };
  const path = join(dataDir, "client.json");
  const complete = given.url !== undefined && given.tokenFile !== undefined && given.caFile !== undefined;
  const file = complete ? {} : clientFile(path);
  const need = (value: string | undefined, name: string): string => {
    if (value !== undefined) return value;
    throw new CliFailure(2, `${path} does not name '${name}'. Restart the service: it writes the file anew.`);
  };
  const url = need(given.url ?? file.url, "url");
  if (!/^https:\/\/[^/]+\/?$/.test(url))
    throw new CliFailure(2, `'${url}' is not the address of a service: it must look like https://127.0.0.1:8470.`);
  return {
    url: url.replace(/\/$/, ""),
    token: read(need(given.tokenFile ?? file.tokenFile, "tokenFile"), "the token file").trim(),
    ca: read(need(given.caFile ?? file.caFile, "caFile"), "the authority's certificate"),
  };
}

function clientFile(path: string): { url?: string; tokenFile?: string; caFile?: string } {
  const text = read(path, "the client file");
  try {
    const value: unknown = JSON.parse(text);
    if (value !== null && typeof value === "object") return value;
  } catch {
    // Named below like any other content that is no client file.
  }
  throw new CliFailure(2, `${path} is damaged. Restart the service: it writes the file anew.`);
}

function read(path: string, what: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EACCES" || code === "EPERM")
      throw new CliFailure(
        2,
        `Cannot read ${what} ${path}: permission denied. Run this as root or as the service's user (sudo -u stillpoint stillpoint …).`,
      );
    if (code === "ENOENT" || code === "ENOTDIR")
      throw new CliFailure(
        2,
        `Cannot read ${what} ${path}: there is no such file. Start the service, or name another one with --data-dir, or with --url, --token-file and --ca-file.`,
      );
    throw new CliFailure(2, `Cannot read ${what} ${path}: ${(error as Error).message}.`);
  }
}
