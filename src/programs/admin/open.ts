import { availableParallelism } from "node:os";
import { join } from "node:path";
import { systemClock, systemRandom } from "../../base/index.ts";
import type { Config } from "../../config/index.ts";
import { openRepository, type Repository } from "../../repository/index.ts";

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
