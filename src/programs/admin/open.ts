import { statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { StillpointError, systemClock, systemRandom } from "../../base/index.ts";
import type { Config } from "../../config/index.ts";
import { openRepository, type Repository } from "../../repository/index.ts";

/**
 * Files that root makes in the repository or the data folder would lock the service out of them. So root becomes the
 * repository's owner first, and anybody else who is not that owner is refused.
 */
export function becomeOwner(config: Config): void {
  const owner = statSync(config.repository.path, { throwIfNoEntry: false });
  const uid = process.getuid?.();
  if (!owner || uid === owner.uid) return;
  if (uid !== 0)
    throw new StillpointError(
      "AuthorizationFailed",
      `The repository ${config.repository.path} belongs to another user.`,
      {
        remedy:
          "Run this command as that user (setpriv --reuid stillpoint --regid stillpoint --init-groups …), or as root.",
      },
    );
  process.setgroups?.([owner.gid]);
  process.setgid?.(owner.gid);
  process.setuid?.(owner.uid);
}

/** The configured repository, for a command that runs beside a stopped service. `keyFile` replaces the configured one. */
export function openConfigured(config: Config, keyFile?: string): Promise<Repository> {
  return openRepository({
    path: config.repository.path,
    keyFile: keyFile ?? config.repository.keyFile,
    region: config.region,
    cacheDir: join(config.dataDir, "cache"),
    workers: config.repository.workers ?? availableParallelism(),
    clock: systemClock,
    random: systemRandom,
  });
}
