/** Full copy, stored size and restore of one dense image, beside restic, borg and qemu-img on the same bytes. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { MiB, type Random, systemRandom } from "../src/base/index.ts";
import type { DiskRestorePoint } from "../src/domain/index.ts";
import { createOfflineExports } from "../src/hypervisors/offline/index.ts";
import { createNvramStore } from "../src/images/index.ts";
import { createRestores } from "../src/recovery/index.ts";
import { type PartTimes, partLimits } from "./lib/parts.ts";
import { type Row, row } from "./lib/report.ts";
import { openStore, type Store, storeFile } from "./lib/store.ts";
import { median, peer, seconds, treeBytes } from "./lib/time.ts";

const random: Random = systemRandom;

interface Peers {
  readonly restic: number[];
  readonly borg: number[];
  readonly qemuImg: number[];
}

/** All contenders in turn, `rounds` times, so that a slow minute of the machine meets them all. */
export async function benchCopy(
  dir: string,
  image: string,
  sizeBytes: number,
  rounds: number,
): Promise<readonly Row[]> {
  const own: number[] = [];
  const parts: PartTimes[] = [];
  const copy: Peers = { restic: [], borg: [], qemuImg: [] };
  const restore = { own: [] as number[], ownQcow2: [] as number[], restic: [] as number[], borg: [] as number[] };
  let stored = 0;
  let zstdBytes = 0;
  for (let round = 0; round < rounds; round++) {
    const work = join(dir, `copy-${round}`);
    await mkdir(work);
    parts.push(await partLimits(image, sizeBytes));
    const store = await openStore(work);
    try {
      let tree: unknown;
      own.push(await seconds(async () => (tree = (await storeFile(store, image, "full")).tree)));
      stored = await treeBytes(store.path);
      await benchPeerCopies(work, image, copy);
      restore.own.push(await restoreOwn(store, tree, work, "raw", sizeBytes));
      restore.ownQcow2.push(await restoreOwn(store, tree, work, "qcow2", sizeBytes));
      await benchPeerRestores(work, restore);
    } finally {
      await store.repository.close();
    }
    if (round === 0) zstdBytes = await zstdSize(image, work);
    await rm(work, { recursive: true });
  }
  return rowsOf({ sizeBytes, own, parts, copy, restore, stored, zstdBytes });
}

async function benchPeerCopies(work: string, image: string, times: Peers): Promise<void> {
  const restic = resticEnv(work);
  await peer("restic", ["init", "--repository-version", "2"], restic);
  times.restic.push(await seconds(() => peer("restic", ["backup", "--compression", "auto", image], restic)));
  const borg = borgEnv(work);
  await peer("borg", ["init", "-e", "repokey-blake2", join(work, "borg")], borg);
  const options = [
    "create",
    "--chunker-params",
    "fixed,1048576",
    "--compression",
    "zstd,1",
    "--files-cache",
    "disabled",
  ];
  times.borg.push(await seconds(() => peer("borg", [...options, `${join(work, "borg")}::full`, image], borg)));
  const target = join(work, "compressed.qcow2");
  times.qemuImg.push(
    await seconds(() =>
      peer("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", image, target]),
    ),
  );
  await rm(target);
}

async function benchPeerRestores(work: string, times: { restic: number[]; borg: number[] }): Promise<void> {
  const target = join(work, "restored");
  await mkdir(target);
  times.restic.push(
    await seconds(() => peer("restic", ["restore", "latest", "--target", target], resticEnv(work)).then(syncAll)),
  );
  await rm(target, { recursive: true });
  await mkdir(target);
  times.borg.push(
    await seconds(() =>
      peer("borg", ["extract", "--sparse", `${join(work, "borg")}::full`], borgEnv(work), target).then(syncAll),
    ),
  );
  await rm(target, { recursive: true });
}

/** Ours fsyncs what it restores; the peers do not, so the sync is added to their time. */
function syncAll(): Promise<void> {
  return peer("sync", []);
}

function resticEnv(work: string) {
  return {
    RESTIC_REPOSITORY: join(work, "restic"),
    RESTIC_PASSWORD: "bench",
    RESTIC_CACHE_DIR: join(work, "restic-cache"),
  };
}

function borgEnv(work: string) {
  return { BORG_PASSPHRASE: "bench", BORG_BASE_DIR: join(work, "borg-base"), HOME: work };
}

async function restoreOwn(
  store: Store,
  tree: unknown,
  work: string,
  format: "raw" | "qcow2",
  sizeBytes: number,
): Promise<number> {
  const offline = await createOfflineExports({ runDir: join(work, "run"), random });
  const nvram = createNvramStore(join(work, "nvram"), random);
  const restores = createRestores({ repository: store.repository, offline, nvram, random });
  const path = join(work, `own.${format}`);
  const source = { tree, sizeBytes, name: "bench", id: "bench" } as unknown as DiskRestorePoint;
  const target = { path, format, sizeBytes: sizeBytes as DiskRestorePoint["sizeBytes"] };
  const time = await seconds(() => restores.restoreDisk(source, target, () => {}, new AbortController().signal));
  await rm(path);
  return time;
}

async function zstdSize(image: string, work: string): Promise<number> {
  const path = join(work, "image.zst");
  await peer("zstd", ["-q", "-1", "-T0", "-f", "-o", path, image]);
  return treeBytes(path);
}

interface Measured {
  readonly sizeBytes: number;
  readonly own: readonly number[];
  readonly parts: readonly PartTimes[];
  readonly copy: Peers;
  readonly restore: { own: number[]; ownQcow2: number[]; restic: number[]; borg: number[] };
  readonly stored: number;
  readonly zstdBytes: number;
}

function rowsOf(m: Measured): readonly Row[] {
  const limit = median(m.parts.map((p) => (p.zstdMs + p.hmacMs + p.gcmMs) / 1000));
  const own = median(m.own);
  const speed = (s: number) => `${Math.round(m.sizeBytes / MiB / s)} MiB/s`;
  const better = Math.min(median(m.copy.restic), median(m.copy.borg));
  const restored = Math.min(median(m.restore.restic), median(m.restore.borg));
  const ownRestore = median(m.restore.own);
  const times = { own: m.own, parts: m.parts, ...m.copy };
  return [
    row(
      "full copy: of the limit of its parts",
      `${(limit / own).toFixed(2)} × (${speed(own)} of ${speed(limit)})`,
      "≥ 0.9 ×",
      limit / own >= 0.9,
      times,
    ),
    row(
      "full copy: of the better of restic and borg",
      `${(better / own).toFixed(2)} × (restic ${speed(median(m.copy.restic))}, borg ${speed(median(m.copy.borg))}, qemu-img ${speed(median(m.copy.qemuImg))})`,
      "≥ 2 ×",
      better / own >= 2,
    ),
    row("stored size", `${(m.stored / m.zstdBytes).toFixed(3)} × zstd -1`, "≤ 1.05 ×", m.stored / m.zstdBytes <= 1.05, {
      storedBytes: m.stored,
      zstdBytes: m.zstdBytes,
    }),
    row(
      "restore to a local raw disk",
      `${(restored / ownRestore).toFixed(2)} × (${speed(ownRestore)}; restic ${speed(median(m.restore.restic))}, borg ${speed(median(m.restore.borg))})`,
      "≥ 3 × restic and borg",
      restored / ownRestore >= 3,
      m.restore,
    ),
    row(
      "restore to a local qcow2 disk",
      `${(restored / median(m.restore.ownQcow2)).toFixed(2)} × (${speed(median(m.restore.ownQcow2))})`,
      "reported",
      null,
    ),
  ];
}
