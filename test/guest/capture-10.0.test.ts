import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { captureSuite } from "./lib/captureSuite.ts";

const target = "/var/cache/stillpoint/qemu-trixie";
execFileSync("sh", [join(import.meta.dirname, "../../setup/qemu-trixie.sh"), target], { stdio: "inherit" });

captureSuite({ label: "QEMU 10.0 of Debian trixie", qemu: [`${target}/qemu-system-x86_64`], iothreadMethod: "pull" });
