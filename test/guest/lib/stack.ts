/**
 * The whole product in one process but for the guard: real QEMU, real repository, real catalog. For tests that must
 * look between two steps of a capture.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { makeDataDisk } from "../../../setup/guest/index.ts";
import { type OperationId, type Probe, type ResourceId, systemClock, systemRandom } from "../../../src/base/index.ts";
import { createCaptures } from "../../../src/capture/index.ts";
import { openCatalog } from "../../../src/catalog/index.ts";
import { type Config, parseConfig } from "../../../src/config/index.ts";
import {
  type Catalog,
  createDomain,
  type Domain,
  type MachineConfig,
  type Operation,
  type RestorePoint,
  type Vm,
} from "../../../src/domain/index.ts";
import { connectGuard, type Guard } from "../../../src/guard/protocol.ts";
import { createOfflineExports } from "../../../src/hypervisors/offline/index.ts";
import { createImages, createNvramStore } from "../../../src/images/index.ts";
import { createMachines } from "../../../src/machines/index.ts";
import { createRestores } from "../../../src/recovery/index.ts";
import { createJournal, openRepository, type Repository } from "../../../src/repository/index.ts";

export const GROUP = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/test" as ResourceId;
const SOURCE_ROOT = join(import.meta.dirname, "../../..");

export interface StackOptions {
  /** How QEMU is started; default: the system's. */
  readonly qemu?: readonly string[];
  readonly probe?: Probe;
}

export interface Stack {
  readonly dir: string;
  readonly config: Config;
  readonly domain: Domain;
  readonly guard: Guard;
  readonly repository: Repository;
  readonly catalog: Catalog;
  /** Waits for the operation's end; throws its error. */
  done(operation: Operation | null): Promise<Operation>;
  close(): Promise<void>;
}

const quiet = { debug() {}, info() {}, warn: complain, error: complain };
function complain(fields: object, message: string): void {
  if (process.env["VERBOSE"]) console.error(message, fields);
}

/** A fresh installation in a temporary folder; `close` ends all it started and removes the folder. */
export async function openStack(options: StackOptions = {}): Promise<Stack> {
  const dir = await mkdtemp(join(tmpdir(), "sp-stack-"));
  const config = await writeConfig(dir, options);
  const guardProcess = startGuard(dir);
  const guard = await connectGuard(join(config.dataDir, "guard.sock"));
  await answering(guard, guardProcess);
  const repository = await openRepository({
    path: config.repository.path,
    keyFile: config.repository.keyFile,
    region: config.region,
    cacheDir: join(dir, "cache"),
    workers: 2,
    clock: systemClock,
    random: systemRandom,
  });
  const catalog = await openCatalog(join(config.dataDir, "catalog.sqlite"));
  const domain = await makeDomain(dir, config, guard, repository, catalog, options.probe);
  await domain.recover();
  await domain.putGroup({ id: GROUP, location: config.region, tags: {} });
  return {
    dir,
    config,
    domain,
    guard,
    repository,
    catalog,
    done: (operation) => settled(domain, operation),
    close: async () => {
      await endVms(guard);
      await domain.close();
      await guard.close();
      await repository.close();
      await catalog.close();
      guardProcess.kill("SIGTERM");
      if (guardProcess.exitCode === null && guardProcess.signalCode === null) await once(guardProcess, "exit");
      await rm(dir, { recursive: true, force: true });
    },
  };
}

async function writeConfig(dir: string, options: StackOptions): Promise<Config> {
  for (const name of ["data", "pool", "capture", "keys", "sockets"]) await mkdir(join(dir, name), { mode: 0o700 });
  const text = stringify({
    dataDir: join(dir, "data"),
    listen: { port: 0 },
    repository: { path: join(dir, "repository"), keyFile: join(dir, "keys/repository.key") },
    host: {
      captureDir: join(dir, "capture"),
      pools: [{ name: "main", path: join(dir, "pool") }],
      socketDirs: [join(dir, "sockets")],
      ...(options.qemu ? { qemu: { system: options.qemu } } : {}),
    },
    sizes: { small: { vcpus: 1, memoryMiB: 256 } },
  });
  await writeFile(join(dir, "config.yaml"), text);
  return parseConfig(text, "config.yaml");
}

function startGuard(dir: string): ChildProcess {
  const out = process.env["VERBOSE"] ? "inherit" : "ignore";
  return spawn(process.execPath, [join(SOURCE_ROOT, "src/programs/guard.ts"), "--config", join(dir, "config.yaml")], {
    stdio: ["ignore", out, out],
  });
}

async function answering(guard: Guard, child: ChildProcess): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await guard.call("vm.list", {}, 2_000);
      return;
    } catch (error) {
      if (tries > 60 || child.exitCode !== null) throw error;
      await systemClock.sleep(200);
    }
  }
}

async function makeDomain(
  dir: string,
  config: Config,
  guard: Guard,
  repository: Repository,
  catalog: Catalog,
  probe: Probe | undefined,
): Promise<Domain> {
  const random = systemRandom;
  const clock = systemClock;
  const nvram = createNvramStore(join(dir, "data/nvram"), random);
  const offline = await createOfflineExports({ runDir: join(dir, "data/run"), random });
  return createDomain({
    catalog,
    journal: createJournal(repository),
    repository,
    captures: createCaptures({
      guard,
      repository,
      offline,
      clock,
      random,
      log: quiet,
      silenceMs: 60_000,
      freezeMs: 20_000,
      ...(probe ? { probe } : {}),
    }),
    machines: createMachines(guard),
    images: createImages({
      host: config.host.name,
      pools: config.host.pools,
      skus: config.skus,
      firmwareVarsPath: config.host.qemu.firmwareVars,
      nvram,
      random,
    }),
    restores: createRestores({ repository, offline, nvram, random }),
    settings: {
      region: config.region,
      host: config.host.name,
      sizes: config.sizes,
      skus: config.skus,
      defaultSku: Object.keys(config.skus)[0] ?? "",
      pointsPerVm: config.limits.pointsPerVm,
    },
    clock,
    random,
    log: quiet,
  });
}

async function settled(domain: Domain, operation: Operation | null): Promise<Operation> {
  if (!operation) throw new Error("no operation");
  for (;;) {
    const now = await domain.getOperation(operation.id as OperationId);
    if (now.status === "Succeeded") return now;
    if (now.status !== "InProgress")
      throw Object.assign(new Error(now.error?.message ?? now.status), { code: now.error?.code });
    await systemClock.sleep(50);
  }
}

async function endVms(guard: Guard): Promise<void> {
  for (const state of await guard.call("vm.list", {}))
    if (state.kind === "own" && state.process !== "down")
      await guard.call("vm.deallocate", { vm: state.vm, graceMs: 0 }, 60_000).catch(() => {
        if (state.pid !== null) process.kill(state.pid, "SIGKILL");
      });
}

// ---------------------------------------------------------------- a VM of three disks

export interface DiskWish {
  readonly name: string;
  readonly from: string;
  readonly format: "raw" | "qcow2";
  readonly iothread?: boolean;
}

/** Imports copies of the given images and starts a VM on them, the first one being the OS disk. */
export async function bootVm(
  stack: Stack,
  name: string,
  disks: readonly DiskWish[],
  hardware: Partial<Pick<MachineConfig, "firmware" | "nics">> = {},
): Promise<Vm> {
  const { domain, config } = stack;
  const ids: ResourceId[] = [];
  for (const disk of disks) {
    const file = `${name}-${disk.name}.${disk.format}`;
    await copyFile(disk.from, join(stack.dir, "pool", file));
    const id = `${GROUP}/providers/Microsoft.Compute/disks/${name}-${disk.name}` as ResourceId;
    const put = await domain.putDisk({
      id,
      location: config.region,
      tags: {},
      sku: null,
      format: null,
      osType: ids.length === 0 ? "Linux" : null,
      hyperVGeneration: null,
      sizeBytes: null,
      creation: { createOption: "Import", sourceUri: `pool://${config.host.name}/main/${file}` },
    });
    if (put.operation) await stack.done(put.operation);
    ids.push(id);
  }
  const vmId = `${GROUP}/providers/Microsoft.Compute/virtualMachines/${name}` as ResourceId;
  const machine: MachineConfig = {
    machineType: "q35",
    cpuModel: "default",
    firmware: hardware.firmware ?? "bios",
    disks: Object.fromEntries(
      disks.map((disk, index) => [
        String(ids[index]).toLowerCase(),
        { bus: "virtio-blk", serial: disk.name, iothread: disk.iothread ?? false, bootIndex: index === 0 ? 1 : null },
      ]),
    ),
    nics: hardware.nics ?? [],
    notes: [],
  };
  await domain.putMachine(vmId, machine);
  const put = await domain.putVm({
    id: vmId,
    location: config.region,
    tags: {},
    vmSize: "small",
    osDisk: { diskId: ids[0] as ResourceId, name: null, osType: "Linux", caching: "None" },
    dataDisks: ids.slice(1).map((diskId, lun) => ({ diskId, name: null, lun, caching: "None" })),
    extras: {},
  });
  await stack.done(put.operation);
  return domain.getVm(vmId);
}

/** A UEFI guest under emulation on a loaded machine takes its time; 7 s to 20 s on an idle one. */
const BOOT_TIMEOUT_MS = 240_000;

/** Waits until the guest agent answers: the guest has booted. */
export async function agentAnswers(stack: Stack, vm: Vm): Promise<void> {
  const endsMs = systemClock.monotonicMs() + BOOT_TIMEOUT_MS;
  for (;;) {
    const power = await stack.domain.vmPower(vm);
    if (power.agent === "connected") return;
    if (systemClock.monotonicMs() > endsMs)
      throw new Error(`the guest agent of ${vm.name} did not answer in time: ${JSON.stringify(power)}`);
    await systemClock.sleep(250);
  }
}

/** Two empty ext4 data disks, as the guest wants them. */
export async function dataDisks(stack: Stack, sizeBytes: number): Promise<{ readonly b: string; readonly c: string }> {
  const b = join(stack.dir, "b.qcow2");
  const c = join(stack.dir, "c.raw");
  await makeDataDisk(b, { label: "sp-b", sizeBytes, format: "qcow2" });
  await makeDataDisk(c, { label: "sp-c", sizeBytes, format: "raw" });
  return { b, c };
}

export async function putCollection(stack: Stack, vm: Vm, name = "points"): Promise<ResourceId> {
  const id = `${GROUP}/providers/Microsoft.Compute/restorePointCollections/${name}` as ResourceId;
  await stack.domain.putCollection({ id, location: stack.config.region, tags: {}, sourceId: vm.id });
  return id;
}

/** Takes a point and waits until it is durable. */
export async function takePoint(
  stack: Stack,
  collection: ResourceId,
  name: string,
  mode: "CrashConsistent" | "FileSystemConsistent" | null = "CrashConsistent",
  excludeDisks: readonly ResourceId[] = [],
): Promise<RestorePoint> {
  const id = `${collection}/restorePoints/${name}` as ResourceId;
  const accepted = await stack.domain.createPoint({
    id,
    collectionId: collection,
    consistencyMode: mode,
    excludeDisks,
    bodyHash: `${mode} ${excludeDisks}`,
  });
  await stack.done(accepted.operation);
  return stack.domain.getPoint(id);
}
