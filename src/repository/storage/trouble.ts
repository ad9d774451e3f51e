import { StillpointError } from "../../base/index.ts";
import { damaged } from "../format/object.ts";

export function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

/** A system error while `name` was written, as one that a caller can act on. */
export function writeFailed(name: string, error: unknown): unknown {
  const code = codeOf(error);
  if (error instanceof StillpointError || code === undefined) return error;
  const extras = { target: name, cause: error };
  if (code === "ENOSPC" || code === "EDQUOT")
    return new StillpointError("InsufficientSpace", `The repository is full: ${name} cannot be written.`, {
      ...extras,
      remedy: "Delete points and collect, or give it more space.",
    });
  return new StillpointError(
    "RepositoryUnavailable",
    `${name} cannot be written: ${(error as Error).message}.`,
    extras,
  );
}

/** A system error while `name` was read. A bad sector is damage of that object; all else is the storage's trouble. */
export function readFailed(name: string, error: unknown): unknown {
  const code = codeOf(error);
  if (error instanceof StillpointError || code === undefined) return error;
  if (code === "EIO") return damaged(name, "it cannot be read from the disk (EIO)", error);
  return new StillpointError("RepositoryUnavailable", `${name} cannot be read: ${(error as Error).message}.`, {
    target: name,
    cause: error,
  });
}
