import pino from "pino";
import { systemClock, systemRandom } from "../base/index.ts";
import { loadConfig } from "../config/index.ts";
import { runGuard, SPACE_RULE } from "../guard/index.ts";
import { chooseAccelerator, readAcceleratorFacts } from "../hypervisors/qemu/index.ts";
import { crashProbe } from "./crash.ts";

const [option, path] = process.argv.slice(2);
if (option !== "--config" || path === undefined) {
  console.error("usage: guard --config FILE");
  process.exit(2);
}
const config = loadConfig(path);
const log = pino({ level: config.log.level, base: null, timestamp: pino.stdTimeFunctions.isoTime });

const guard = await runGuard({
  dataDir: config.dataDir,
  captureDir: config.host.captureDir,
  socketDirs: config.host.socketDirs,
  qemu: { system: config.host.qemu.system, firmwareCode: config.host.qemu.firmwareCode },
  accelerator: chooseAccelerator(config.host.accelerator, readAcceleratorFacts()),
  clock: systemClock,
  random: systemRandom,
  log,
  spaceRule: SPACE_RULE,
  probe: crashProbe() ?? (() => {}),
});
log.info({ socket: guard.socket, pid: process.pid }, "guard ready");

for (const signal of ["SIGTERM", "SIGINT"] as const)
  process.once(signal, () => {
    log.info({ signal }, "guard ends; virtual machines run on");
    void guard.close().then(() => process.exit(0));
  });
