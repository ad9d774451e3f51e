/**
 * `node setup/lock.ts`: completes package-lock.json after `npm install`.
 *
 * Tools such as Biome name one optional package per platform. A registry mirror that lacks some of them makes npm leave
 * them out of the lock file, and `npm ci` then refuses that file everywhere. This adds the missing ones with the version
 * that is asked for and the platform in their name; on the platforms this project runs on they are never installed. It
 * also takes out addresses, so that the file ties nobody to a registry.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

interface Entry {
  version?: string;
  resolved?: string;
  dev?: boolean;
  optional?: boolean;
  os?: readonly string[];
  cpu?: readonly string[];
  libc?: readonly string[];
  optionalDependencies?: Readonly<Record<string, string>>;
}

const OS = ["android", "darwin", "freebsd", "linux", "openharmony", "win32"];
const CPU = ["arm64", "arm", "x64", "ia32", "ppc64", "riscv64", "s390x", "wasm32", "loong64", "mips64el"];

const path = join(dirname(import.meta.dirname), "package-lock.json");
const lock = JSON.parse(readFileSync(path, "utf8")) as { packages: Record<string, Entry> };
for (const entry of Object.values(lock.packages)) delete entry.resolved;
for (const [parent, { optionalDependencies, dev }] of Object.entries(lock.packages)) {
  if (parent === "") continue;
  for (const [name, version] of Object.entries(optionalDependencies ?? {})) {
    const at = `node_modules/${name}`;
    if (lock.packages[`${parent}/${at}`] || lock.packages[at]) continue;
    const words = name.split("/").at(-1)?.split("-") ?? [];
    const os = words.filter((word) => OS.includes(word));
    const cpu = CPU.filter((one) => words.includes(one));
    lock.packages[at] = {
      version: version.replace(/^[\^~]/, ""),
      ...(cpu.length > 0 ? { cpu } : {}),
      ...(dev ? { dev } : {}),
      ...(words.some((word) => word.startsWith("musl")) ? { libc: ["musl"] } : {}),
      optional: true,
      ...(os.length > 0 ? { os } : {}),
    };
    console.log(`added ${name} ${version}`);
  }
}
const sorted = Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1));
writeFileSync(path, `${JSON.stringify({ ...lock, packages: Object.fromEntries(sorted) }, null, 2)}\n`);
