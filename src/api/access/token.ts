import { createHash, timingSafeEqual } from "node:crypto";
import { lstat, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Random, replaceFile, StillpointError } from "../../base/index.ts";

const TOKEN = /^[A-Za-z0-9_-]{43}$/;

/**
 * The bearer token in `{dataDir}/token`, made at the first start: 256 random bits, mode 0600, durable when this
 * returns. Throws InvalidParameter when the file is readable by others or holds something else: a token that leaked
 * must be seen, not used.
 */
export async function ensureToken(
  dataDir: string,
  random: Random,
): Promise<{ readonly token: string; readonly path: string }> {
  const path = join(dataDir, "token");
  const found = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return null;
    throw error;
  });
  if (found === null) {
    const token = random.bytes(32).toString("base64url");
    await replaceFile(path, `${token}\n`, 0o600);
    return { token, path };
  }
  if (!found.isFile() || (found.mode & 0o077) !== 0)
    throw new StillpointError(
      "InvalidParameter",
      `The token file ${path} is no file of mode 0600: others could read it.`,
      {
        remedy: `Delete it and start again: a new token is made.`,
      },
    );
  const token = (await readFile(path, "utf8")).trim();
  if (!TOKEN.test(token))
    throw new StillpointError("InvalidParameter", `The token file ${path} does not hold a token.`, {
      remedy: "Delete it and start again: a new token is made.",
    });
  return { token, path };
}

/** Whether an Authorization header bears the token; takes the same time whatever the header says. */
export function tokenCheck(token: string): (authorization: string | undefined) => boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  const wanted = digest(token);
  return (authorization) => {
    const given = /^Bearer +([^\s]+) *$/i.exec(authorization ?? "")?.[1] ?? "";
    return timingSafeEqual(digest(given), wanted);
  };
}
