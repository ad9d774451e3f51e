import { readFileSync } from "node:fs";
import { isAbsolute } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { StillpointError } from "../base/index.ts";

const absolutePath = z.string().refine((p) => isAbsolute(p) && !p.split("/").includes(".."), {
  message: "must be an absolute path without '..'",
});
const name = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, "must be 1-63 of a-z, 0-9 and '-', starting with a letter or digit");

/** Every option, with its default. Explained in docs/operations.md; a test holds the two together. */
export const configSchema = z.strictObject({
  /** Location name of this site, as clients give it. */
  region: name.default("local"),
  /** Catalog, certificates, token, NVRAM, VM runtime folders. */
  dataDir: absolutePath.default("/var/lib/stillpoint"),
  listen: z
    .strictObject({
      /** Loopback only until access control lands. */
      host: z.enum(["127.0.0.1", "::1", "localhost"]).default("127.0.0.1"),
      port: z.int().min(0).max(65535).default(8470),
    })
    .prefault({}),
  repository: z.strictObject({ path: absolutePath, keyFile: absolutePath, workers: z.int().min(1).max(64).optional() }),
  host: z.strictObject({
    name: name.default("host1"),
    /** Fleeces and staging files; never inside a pool. */
    captureDir: absolutePath,
    pools: z.array(z.strictObject({ name, path: absolutePath })).min(1),
    /** Folders below which sockets of adopted VMs are accepted. */
    socketDirs: z.array(absolutePath).default([]),
    /** The QEMU to start: program and, for one unpacked beside the system's, its data folders. */
    qemu: z
      .strictObject({
        system: z.array(z.string()).min(1).default(["qemu-system-x86_64"]),
        firmwareCode: absolutePath.default("/usr/share/OVMF/OVMF_CODE_4M.fd"),
        firmwareVars: absolutePath.default("/usr/share/OVMF/OVMF_VARS_4M.fd"),
      })
      .prefault({}),
    accelerator: z.enum(["auto", "kvm", "tcg"]).default("auto"),
  }),
  /** vmSize → what QEMU gets. */
  sizes: z
    .record(
      z.string(),
      z.strictObject({
        vcpus: z.int().min(1).max(256),
        memoryMiB: z
          .int()
          .min(64)
          .max(4 * 1024 * 1024),
      }),
    )
    .default({
      Standard_B1ls: { vcpus: 1, memoryMiB: 512 },
      Standard_B1s: { vcpus: 1, memoryMiB: 1024 },
      Standard_B2s: { vcpus: 2, memoryMiB: 4096 },
      Standard_D2s_v3: { vcpus: 2, memoryMiB: 8192 },
      Standard_D4s_v3: { vcpus: 4, memoryMiB: 16384 },
      Standard_D8s_v3: { vcpus: 8, memoryMiB: 32768 },
    }),
  /** sku.name → pool and image format. The first is the default. */
  skus: z.record(z.string(), z.strictObject({ pool: name, format: z.enum(["qcow2", "raw"]) })).optional(),
  limits: z
    .strictObject({
      pointsPerVm: z.int().min(1).max(500).default(500),
      /** The guard gives a capture up after this silence of the service. */
      silenceMinutes: z.int().min(1).max(240).default(15),
      /** Longest time a guest may be frozen. */
      freezeSeconds: z.int().min(1).max(30).default(8),
    })
    .prefault({}),
  log: z.strictObject({ level: z.enum(["debug", "info", "warn", "error"]).default("info") }).prefault({}),
});

export type Config = z.output<typeof configSchema> & {
  readonly skus: Readonly<Record<string, { readonly pool: string; readonly format: "qcow2" | "raw" }>>;
};

/** Parses a YAML configuration. Throws InvalidParameter naming the option and what it must be. */
export function parseConfig(text: string, source: string): Config {
  let raw: unknown;
  try {
    raw = parse(text);
  } catch (error) {
    throw new StillpointError("InvalidParameter", `${source} is not YAML: ${(error as Error).message}`);
  }
  const result = configSchema.safeParse(raw);
  if (!result.success) {
    const lines = result.error.issues.map((issue) => `${issue.path.join(".") || "(top)"}: ${issue.message}`);
    throw new StillpointError("InvalidParameter", `${source}: ${lines.join("; ")}`, {
      remedy: "See docs/operations.md.",
    });
  }
  return completed(result.data, source);
}

export function loadConfig(path: string): Config {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new StillpointError("InvalidParameter", `The configuration cannot be read: ${(error as Error).message}.`, {
      remedy: "Name it with --config, and run this as the service's user or as root.",
      cause: error,
    });
  }
  return parseConfig(text, path);
}

function completed(data: z.output<typeof configSchema>, source: string): Config {
  const first = data.host.pools[0];
  if (!first) throw new StillpointError("InvalidParameter", `${source}: host.pools: at least one pool is needed.`);
  const skus = data.skus ?? {
    Standard_LRS: { pool: first.name, format: "qcow2" as const },
    StandardSSD_LRS: { pool: first.name, format: "qcow2" as const },
    Premium_LRS: { pool: first.name, format: "qcow2" as const },
  };
  const pools = new Set(data.host.pools.map((pool) => pool.name));
  for (const [sku, { pool }] of Object.entries(skus))
    if (!pools.has(pool))
      throw new StillpointError("InvalidParameter", `${source}: skus.${sku}.pool: there is no pool '${pool}'.`);
  const inside = (path: string, folder: string) => path === folder || path.startsWith(`${folder}/`);
  for (const pool of data.host.pools)
    if (
      inside(data.host.captureDir, pool.path) ||
      inside(data.repository.path, pool.path) ||
      inside(data.repository.keyFile, pool.path)
    )
      throw new StillpointError(
        "InvalidParameter",
        `${source}: host.pools: '${pool.name}' contains the capture folder, the repository or its key.`,
        {
          remedy: "Give each a folder of its own.",
        },
      );
  if (inside(data.repository.keyFile, data.repository.path))
    throw new StillpointError("InvalidParameter", `${source}: repository.keyFile lies inside the repository.`, {
      remedy: "A key beside the data it locks protects nothing; move it out.",
    });
  return { ...data, skus };
}
