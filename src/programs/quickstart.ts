/**
 * `npm run quickstart`: shows the product at work on a real guest, from an empty machine to a VM restored from a point.
 * Runs as the service's user; set-up has installed everything before. Ends with `quickstart: ok` and 0, or a reason and 1.
 */
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { systemClock, systemRandom } from "../base/index.ts";
import { closing } from "./quickstart/closing.ts";
import { createScreen } from "./quickstart/screen.ts";
import { prepareSite } from "./quickstart/site.ts";
import { walk } from "./quickstart/walk.ts";

const { values } = parseArgs({
  options: { "data-dir": { type: "string", default: "/var/lib/stillpoint/quickstart" } },
});
process.env["PATH"] = `${process.env["PATH"]}:/usr/local/sbin:/usr/sbin:/sbin`;
process.umask(0o077);

const screen = createScreen(process.stdout, systemClock);
try {
  const program = dirname(dirname(import.meta.dirname));
  const site = await prepareSite(values["data-dir"], program);
  screen.say(`Stillpoint quickstart: everything it makes is below ${site.root}`);
  const result = await walk({ site, screen, clock: systemClock, random: systemRandom });
  for (const line of closing(site, result, join(program, "bin/stillpoint"))) screen.say(line);
  screen.say("quickstart: ok");
} catch (error) {
  screen.say(`quickstart: failed: ${error instanceof Error ? error.message : String(error)}`);
  screen.say(`The logs are in ${join(values["data-dir"], "run")}.`);
  process.exitCode = 1;
}
