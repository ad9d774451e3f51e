/** Puts kernel and root file system on a disk that boots by itself, by BIOS (syslinux) and by UEFI (systemd-boot). */
import { open, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/base/spawn.ts";
import { KERNEL_COMMAND_LINE, LAYOUT } from "./recipe.ts";

const TIMEOUT_MS = 120_000;
const SECTOR_BYTES = 512;
/** From the package syslinux-common. */
const BOOT_CODE = "/usr/lib/syslinux/mbr/mbr.bin";

export interface OsDiskParts {
  readonly kernel: string;
  readonly initrd: string;
  readonly root: string;
  readonly uefiLoader: string;
  readonly files: string;
  readonly work: string;
}

/** Writes the OS disk as qcow2 to `target`. Needs no root rights: nothing is mounted. */
export async function makeOsDisk(parts: OsDiskParts, target: string): Promise<void> {
  const boot = join(parts.work, "boot.img");
  const root = join(parts.work, "root.img");
  const raw = join(parts.work, "os.raw");
  await makeBootPartition(parts, boot);
  await makeExt4(root, "sp-root", LAYOUT.rootBytes, ["-d", parts.root]);
  await writeFile(raw, await masterBootRecord());
  await truncate(raw, LAYOUT.totalBytes);
  await place(boot, raw, LAYOUT.bootOffsetBytes);
  await place(root, raw, LAYOUT.rootOffsetBytes);
  await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, target], TIMEOUT_MS);
}

/** An empty ext4 file system with this label, as a whole disk. The guest mounts `sp-b` on /b and `sp-c` on /c. */
export async function makeDataDisk(
  target: string,
  disk: { readonly label: "sp-b" | "sp-c"; readonly sizeBytes: number; readonly format: "raw" | "qcow2" },
): Promise<void> {
  if (disk.format === "raw") return makeExt4(target, disk.label, disk.sizeBytes, []);
  const raw = `${target}.raw`;
  await makeExt4(raw, disk.label, disk.sizeBytes, []);
  await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, target], TIMEOUT_MS);
  await rm(raw);
}

async function makeExt4(path: string, label: string, sizeBytes: number, extra: readonly string[]): Promise<void> {
  await writeFile(path, "");
  await truncate(path, sizeBytes);
  // full tables now, so that the guest's kernel does not write them in the background later
  const options = "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard";
  await run("mkfs.ext4", ["-q", "-F", "-b", "4096", "-L", label, "-E", options, ...extra, path], TIMEOUT_MS);
}

async function makeBootPartition(parts: OsDiskParts, path: string): Promise<void> {
  await writeFile(path, "");
  await truncate(path, LAYOUT.bootBytes);
  await run("mkfs.fat", ["-F", "16", "-n", "SPBOOT", path], TIMEOUT_MS);
  await run("syslinux", ["--install", path], TIMEOUT_MS);
  await run("mmd", ["-i", path, "::/EFI", "::/EFI/BOOT", "::/loader", "::/loader/entries"], TIMEOUT_MS);
  const copies: readonly (readonly [string, string])[] = [
    [parts.kernel, "::/vmlinuz"],
    [parts.initrd, "::/initrd.gz"],
    [parts.uefiLoader, "::/EFI/BOOT/BOOTX64.EFI"],
    [await filled(parts, "syslinux.cfg"), "::/syslinux.cfg"],
    [await filled(parts, "loader.conf"), "::/loader/loader.conf"],
    [await filled(parts, "linux.conf"), "::/loader/entries/linux.conf"],
  ];
  for (const [from, to] of copies) await run("mcopy", ["-i", path, from, to], TIMEOUT_MS);
}

async function filled(parts: OsDiskParts, name: string): Promise<string> {
  const text = await readFile(join(parts.files, name), "utf8");
  const path = join(parts.work, name);
  await writeFile(path, text.replaceAll("@CMDLINE@", KERNEL_COMMAND_LINE));
  return path;
}

/** Boot code and two primary partitions: FAT (bootable) and Linux. Cylinders are fiction; the code reads by LBA. */
async function masterBootRecord(): Promise<Buffer> {
  const record = Buffer.alloc(SECTOR_BYTES);
  (await readFile(BOOT_CODE)).copy(record, 0, 0, 440);
  record.write("STPT", 440, "latin1");
  partition(record, 0, 0x80, 0x0e, LAYOUT.bootOffsetBytes, LAYOUT.bootBytes);
  partition(record, 1, 0x00, 0x83, LAYOUT.rootOffsetBytes, LAYOUT.rootBytes);
  record.writeUInt16LE(0xaa55, 510);
  return record;
}

function partition(record: Buffer, index: number, flag: number, type: number, offset: number, size: number): void {
  const at = 446 + index * 16;
  record.set([flag, 0xfe, 0xff, 0xff, type, 0xfe, 0xff, 0xff], at);
  record.writeUInt32LE(offset / SECTOR_BYTES, at + 8);
  record.writeUInt32LE(size / SECTOR_BYTES, at + 12);
}

/** Copies `from` into `disk` at an offset, leaving holes where it is zero. */
async function place(from: string, disk: string, offsetBytes: number): Promise<void> {
  const piece = Buffer.alloc(1024 * 1024);
  const source = await open(from, "r");
  try {
    const target = await open(disk, "r+");
    try {
      for (let at = 0; ; ) {
        const { bytesRead } = await source.read(piece, 0, piece.length, at);
        if (bytesRead === 0) return;
        const part = piece.subarray(0, bytesRead);
        if (part.some((byte) => byte !== 0)) await target.write(part, 0, bytesRead, offsetBytes + at);
        at += bytesRead;
      }
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}
