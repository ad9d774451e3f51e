/** The service: API, domain, copy workers, catalog. May die at any instruction. Only wiring. */
import { chmod, mkdir } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { pino } from "pino";
import { type Api, createApi, ensureCertificate, ensureToken, writeClientFile } from "../api/index.ts";
import { type Clock, StillpointError, systemClock, systemRandom } from "../base/index.ts";
import { createCaptures } from "../capture/index.ts";
import { openCatalog } from "../catalog/index.ts";
import { type Config, loadConfig } from "../config/index.ts";
import { createDomain } from "../domain/index.ts";
import { connectGuard, type Guard } from "../guard/protocol.ts";
import { createOfflineExports } from "../hypervisors/offline/index.ts";
import { createImages, createNvramStore, removePartials } from "../images/index.ts";
import { createMachines } from "../machines/index.ts";
import { createRestores } from "../recovery/index.ts";
import { createJournal, openRepository } from "../repository/index.ts";
import { crashProbe } from "./crash.ts";
import { startUpkeep } from "./upkeep.ts";

const clock = systemClock;
const random = systemRandom;

const { values } = parseArgs({ options: { config: { type: "string", default: "/etc/stillpoint/config.yaml" } } });
const config = loadConfig(values.config);
const log = pino({ level: config.log.level, base: null });

main().catch((error: unknown) => {
  log.fatal({ err: error }, error instanceof Error ? error.message : "the service could not start");
  process.exitCode = 1;
  setTimeout(() => process.exit(1), 2_000).unref();
});

async function main(): Promise<void> {
  const { dataDir } = config;
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  await chmod(dataDir, 0o700);
  const catalog = await openCatalog(join(dataDir, "catalog.sqlite"));
  const repository = await openRepository({
    path: config.repository.path,
    keyFile: config.repository.keyFile,
    region: config.region,
    cacheDir: join(dataDir, "cache"),
    workers: config.repository.workers ?? availableParallelism(),
    clock,
    random,
  });
  if ((await repository.journalHead()).number <= 2)
    log.warn(
      { keyFile: config.repository.keyFile },
      "copy the key file to a safe place: without it no restore point can ever be read. " +
        "'stillpoint keys export-recovery-kit' prints it.",
    );
  const guard = await connectGuard(join(dataDir, "guard.sock"));
  await waitForGuard(guard, clock);
  const pools = config.host.pools;
  const nvram = createNvramStore(join(dataDir, "nvram"), random);
  await removePartials([...pools.map((pool) => pool.path), nvram.dir]);
  const offline = await createOfflineExports({ runDir: join(dataDir, "run"), random });
  const images = createImages({
    host: config.host.name,
    pools,
    skus: config.skus,
    firmwareVarsPath: config.host.qemu.firmwareVars,
    nvram,
    random,
  });
  const probe = crashProbe();
  const domain = createDomain({
    catalog,
    journal: createJournal(repository),
    repository,
    captures: createCaptures({
      guard,
      repository,
      offline,
      clock,
      random,
      log,
      silenceMs: config.limits.silenceMinutes * 60_000,
      freezeMs: config.limits.freezeSeconds * 1000,
      ...(probe ? { probe } : {}),
    }),
    machines: createMachines(guard),
    images,
    restores: createRestores({ repository, offline, nvram, random }),
    settings: settingsOf(config),
    clock,
    random,
    log,
    ...(probe ? { probe } : {}),
  });
  const certificate = await ensureCertificate(dataDir, clock);
  const token = await ensureToken(dataDir, random);
  const api = createApi({
    domain,
    token: token.token,
    tls: certificate,
    region: config.region,
    clock,
    random,
    log,
    health: async () => {
      const { readOnly } = domain.health();
      return readOnly ? [`${readOnly.code}: ${readOnly.message}`] : [];
    },
  });
  await domain.recover();
  const { url } = await api.listen(config.listen.host, config.listen.port);
  await writeClientFile(dataDir, { url, tokenFile: token.path, caFile: certificate.caFile });
  log.info({ url, region: config.region, repository: repository.repositoryId }, "the service is ready");
  const upkeep = startUpkeep(catalog, repository, clock, log);
  const renewal = setInterval(() => renewCertificate(api), RENEWAL_CHECK_MS);
  await untilAskedToStop();
  log.info({}, "stopping");
  clearInterval(renewal);
  await api.close();
  await upkeep.stop();
  await domain.close();
  await guard.close();
  await repository.close();
  await catalog.close();
}

const RENEWAL_CHECK_MS = 24 * 60 * 60_000;

/** A service that runs for years must not end with its certificate. */
function renewCertificate(api: Api): void {
  ensureCertificate(config.dataDir, clock).then(
    (certificate) => api.setCertificate(certificate),
    (error: unknown) => log.error({ err: error }, "the certificate could not be checked; tried again tomorrow"),
  );
}

function settingsOf(from: Config) {
  const [defaultSku] = Object.keys(from.skus);
  if (defaultSku === undefined) throw new StillpointError("InvalidParameter", "skus: at least one is needed.");
  return {
    region: from.region,
    host: from.host.name,
    sizes: from.sizes,
    skus: from.skus,
    defaultSku,
    pointsPerVm: from.limits.pointsPerVm,
  };
}

const GUARD_WAIT_MS = 60_000;

/** Nothing is decided about captures before their guard has answered. */
async function waitForGuard(guard: Guard, waiting: Clock): Promise<void> {
  const endMs = waiting.monotonicMs() + GUARD_WAIT_MS;
  for (;;) {
    try {
      await guard.call("vm.list", {}, 5_000);
      return;
    } catch (error) {
      if (waiting.monotonicMs() > endMs)
        throw new StillpointError("HypervisorUnavailable", "The guard did not answer within a minute.", {
          remedy: "Start it: 'stillpoint-guard --config FILE', or 'systemctl start stillpoint-guard'.",
          cause: error,
        });
      await waiting.sleep(250);
    }
  }
}

function untilAskedToStop(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve());
  });
}
