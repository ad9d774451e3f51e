import { createHash } from "node:crypto";
import { mkdir, open, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { type Random, StillpointError, syncDirectory } from "../base/index.ts";
import { deriveKey, KEY_BYTES } from "./derive.ts";

/** The secret that opens one repository, and which one. */
export interface RepositoryKey {
  /** 32 hex digits; also in the repository's header, so that a key can be told to be of another repository. */
  readonly repositoryId: string;
  readonly secret: Buffer;
}

export const REPOSITORY_ID_BYTES = 16;

export function drawRepositoryKey(random: Random): RepositoryKey {
  return { repositoryId: random.bytes(REPOSITORY_ID_BYTES).toString("hex"), secret: random.bytes(KEY_BYTES) };
}

/** A public name of the secret: tells a wrong key from a damaged repository. */
export function keyId(key: RepositoryKey): string {
  return deriveKey(key.secret, Buffer.from(key.repositoryId, "hex"), "key-id").toString("hex").slice(0, 32);
}

function checksum(repositoryId: string, secretHex: string): string {
  return createHash("sha256").update(`stillpoint-key:1\n${repositoryId}\n${secretHex}\n`).digest("hex").slice(0, 16);
}

/** The four lines that are the key, in files and on paper. */
export function keyLines(key: RepositoryKey, group: (hex: string) => string = (hex) => hex): string {
  const secretHex = key.secret.toString("hex");
  return [
    "stillpoint-key: 1",
    `repository: ${group(key.repositoryId)}`,
    `key: ${group(secretHex)}`,
    `check: ${group(checksum(key.repositoryId, secretHex))}`,
    "",
  ].join("\n");
}

/**
 * Finds the four key lines in a text: a key file or a recovery kit, also typed in from paper (case, spaces and dashes do
 * not matter). Throws KeyMismatch saying what is wrong with it.
 */
export function parseKey(text: string, source: string): RepositoryKey {
  const field = (name: string): string => {
    const found = new RegExp(`^[ \\t]*${name}[ \\t]*:(.*)$`, "im").exec(text)?.[1];
    if (found === undefined) throw badKey(source, `it has no line '${name}:'`);
    return found.replace(/[\s-]/g, "").toLowerCase();
  };
  const version = field("stillpoint-key");
  if (version !== "1") throw badKey(source, `its version '${version.slice(0, 16)}' is not known here`);
  const repositoryId = field("repository");
  const secretHex = field("key");
  if (!/^[0-9a-f]{32}$/.test(repositoryId)) throw badKey(source, "its repository id is not 32 hex digits");
  if (!/^[0-9a-f]{64}$/.test(secretHex)) throw badKey(source, "its key is not 64 hex digits");
  if (field("check") !== checksum(repositoryId, secretHex))
    throw badKey(source, "its check does not match: it is damaged or mistyped");
  return { repositoryId, secret: Buffer.from(secretHex, "hex") };
}

function badKey(source: string, why: string): StillpointError {
  return new StillpointError("KeyMismatch", `${source} is not a usable repository key: ${why}.`, {
    target: source,
    remedy: "Put the copy of the key file or the recovery kit in its place.",
  });
}

/** The key in `path`, or null when there is no such file. Any other failure to read it is an error. */
export async function readKeyFile(path: string): Promise<RepositoryKey | null> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new StillpointError(
      "KeyMismatch",
      `The repository key ${path} cannot be read: ${(error as Error).message}.`,
      {
        target: path,
        cause: error,
      },
    );
  }
  return parseKey(text, path);
}

/** Writes a new key file, mode 0600, durable with its directory when it returns. Never replaces one. */
export async function createKeyFile(path: string, key: RepositoryKey): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const handle = await open(path, "wx", 0o600);
  try {
    await handle.writeFile(
      `# Stillpoint repository key. Without it no restore point can be read, by anyone. Keep a copy elsewhere.\n${keyLines(key)}`,
    );
    await handle.sync();
  } finally {
    await handle.close();
  }
  await syncDirectory(dirname(path));
}
