import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { StillpointError } from "../base/index.ts";
import type { RepositoryKey } from "../keys/index.ts";
import { loadCondemned } from "./collect/condemned.ts";
import { PinBoard } from "./collect/pins.ts";
import type { Core } from "./core.ts";
import {
  adoptPendingKey,
  clearUnfinished,
  findRepository,
  makeRepositoryFolder,
  writeNewRepository,
} from "./create.ts";
import { openDamageLog } from "./damage.ts";
import { readDomains } from "./domains.ts";
import { damaged, isDamage, NO_DOMAIN } from "./format/object.ts";
import { packName } from "./format/pack.ts";
import {
  authenticateHeader,
  decodeRepositoryHeader,
  HEADER_NAMES,
  type RepositoryHeader,
  readOnlyBecause,
} from "./format/repository-header.ts";
import { sealObject } from "./format/sealed.ts";
import { openChunkIndex } from "./index/chunk-index.ts";
import { makeLocator } from "./index/locator.ts";
import { OpenPacks, PackSet } from "./index/packs.ts";
import { indexPacks } from "./index/rebuild.ts";
import { openJournal } from "./journal.ts";
import { makeNodeReader } from "./read/nodes.ts";
import { assembleRepository } from "./repository.ts";
import { directoryStorage } from "./storage/directory.ts";
import { type Lock, lockFolder } from "./storage/lock.ts";
import type { Storage } from "./storage/storage.ts";
import type { Repository, RepositoryOptions } from "./types.ts";
import { type WorkerPool, workerPool } from "./write/pool.ts";

/**
 * Opens the repository in `options.path` with the key in `options.keyFile`, or creates both when neither is there.
 * Holds the folder's lock until closed. Throws KeyMismatch for a missing or wrong key, RepositoryUnavailable when
 * another process has it open or the folder holds something else; nothing was written then.
 */
export async function openRepository(options: RepositoryOptions): Promise<Repository> {
  const { path, keyFile, random } = options;
  const found = await findRepository(path, keyFile, random);
  if (found.state === "there") {
    const key = found.key;
    if (!key) throw await missingKey(options);
    // Before the lock and before the cleaning of tmp/: a wrong key must not change anything.
    await checkHeader(plainHeaders(path), key, options);
    return locked(path, async (lock) => {
      await adoptPendingKey(keyFile);
      const storage = await directoryStorage({ root: path, random });
      return openStored(storage, key, { ...options, pool: workerPool(options.workers) }, lock);
    });
  }
  await makeRepositoryFolder(path);
  return locked(path, async (lock) => {
    await clearUnfinished(path);
    const storage = await directoryStorage({ root: path, random });
    await writeNewRepository(storage, found.key, options);
    await adoptPendingKey(keyFile);
    return openStored(storage, found.key, { ...options, pool: workerPool(options.workers) }, lock);
  });
}

async function locked(path: string, work: (lock: Lock) => Promise<Repository>): Promise<Repository> {
  const lock = lockFolder(path);
  try {
    return await work(lock);
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** Reads the header objects without the storage, which would write. */
function plainHeaders(path: string): (name: string) => Promise<Buffer | null> {
  return (name) =>
    readFile(join(path, name)).catch((error) => {
      if (error.code === "ENOENT") return null;
      throw error;
    });
}

async function missingKey(options: RepositoryOptions): Promise<StillpointError> {
  const { header } = await readHeader(plainHeaders(options.path));
  return new StillpointError(
    "KeyMismatch",
    `The key of repository ${header.repositoryId} is missing: there is no ${options.keyFile}.`,
    { target: options.keyFile, remedy: "Put the copy of the key file or the recovery kit in its place." },
  );
}

/** The first of the header's two copies that is whole. */
async function readHeader(read: (name: string) => Promise<Buffer | null>) {
  let problem: unknown = damaged(HEADER_NAMES[0], "it is missing");
  for (const name of HEADER_NAMES) {
    try {
      const bytes = await read(name);
      if (bytes) return { name, bytes, header: decodeRepositoryHeader(bytes, name) };
    } catch (error) {
      if (!isDamage(error)) throw error;
      problem = error;
    }
  }
  throw problem;
}

async function checkHeader(
  read: (name: string) => Promise<Buffer | null>,
  key: RepositoryKey,
  options: Pick<RepositoryOptions, "region">,
): Promise<RepositoryHeader> {
  const { name, bytes, header } = await readHeader(read);
  authenticateHeader(bytes, name, header, key);
  if (header.region !== options.region)
    throw new StillpointError(
      "RepositoryUnavailable",
      `The repository belongs to region '${header.region}', not to '${options.region}'.`,
      { target: "region", remedy: "Name the region it was created with." },
    );
  return header;
}

export interface StoredOptions extends Pick<RepositoryOptions, "region" | "cacheDir" | "clock" | "random"> {
  /** Closed with the repository. */
  readonly pool: WorkerPool;
}

/** Opens the repository in a storage that this process alone uses. `lock` is let go when it is closed. */
export async function openStored(
  storage: Storage,
  key: RepositoryKey,
  options: StoredOptions,
  lock: Lock,
): Promise<Repository> {
  const { region, clock, random } = options;
  const header = await checkHeader((name) => storage.read(name), key, options);
  const readOnly = readOnlyBecause(header.features);
  const epoch = await nextEpoch(storage, key, options, readOnly === null);
  const journal = openJournal({ storage, key, epoch, clock, random });
  const domains = await readDomains(storage, key, journal, header.platformDomain);
  const packs = new PackSet();
  for await (const { name, sizeBytes } of storage.list("packs/")) {
    const id = name.slice(name.lastIndexOf("/") + 1);
    if (name === packName(id)) packs.add(id, sizeBytes);
  }
  const cacheDir = join(options.cacheDir, key.repositoryId);
  await rm(join(cacheDir, "tmp"), { recursive: true, force: true }); // an earlier life's
  const openPacks = new OpenPacks(storage, key.repositoryId, domains);
  const index = openChunkIndex(join(cacheDir, "chunks"), packs, random);
  const damage = await openDamageLog(storage, key, epoch, random, packs);
  const locator = makeLocator(index, openPacks, damage);
  const core: Core = {
    storage,
    key,
    region,
    epoch,
    domains,
    platformDomain: header.platformDomain,
    packs,
    openPacks,
    index,
    locator,
    damage,
    nodes: makeNodeReader(storage, locator, damage),
    pins: new PinBoard(),
    pool: options.pool,
    cacheDir,
    clock,
    random,
    readOnlyBecause: readOnly,
  };
  await indexPacks(core);
  const condemned = await loadCondemned(storage, key, epoch, random, packs);
  return assembleRepository(core, journal, condemned, lock);
}

const EPOCHS = "epochs/";

/** Takes the next epoch by creating its object exclusively; older ones are no longer needed. */
async function nextEpoch(
  storage: Storage,
  key: RepositoryKey,
  { clock, random }: Pick<StoredOptions, "clock" | "random">,
  writable: boolean,
): Promise<number> {
  const names: string[] = [];
  for await (const { name } of storage.list(EPOCHS))
    if (/^[0-9]{10}$/.test(name.slice(EPOCHS.length))) names.push(name);
  const last = Math.max(0, ...names.map((name) => Number(name.slice(EPOCHS.length))));
  if (!writable) return last;
  const epoch = last + 1;
  const name = `${EPOCHS}${String(epoch).padStart(10, "0")}`;
  const bytes = sealObject(key.secret, random.bytes(32), name, {
    header: { kind: "epoch", epoch, repositoryId: key.repositoryId, domain: NO_DOMAIN },
    clear: Buffer.alloc(0),
    content: Buffer.from(JSON.stringify({ at: clock.now().toISOString() })),
  });
  if ((await storage.create(name, bytes)) !== "created")
    throw new StillpointError("RepositoryFenced", `Epoch ${epoch} was taken by another service.`, {
      remedy: "One service writes to a repository at a time; stop the other one.",
    });
  for (const old of names) await storage.delete(old);
  return epoch;
}
