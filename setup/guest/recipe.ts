/** What the demonstration guest is made of. Everything is a Debian package; nothing is compiled. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const MiB = 1024 * 1024;

/** Packages unpacked into the guest's root file system: the guest agent and perl with all they load. */
export const ROOT_PACKAGES = [
  "busybox-static",
  "qemu-guest-agent",
  "perl-base",
  "libc6",
  "libcrypt1",
  "libglib2.0-0",
  "libnuma1",
  "libpcre2-8-0",
  "libudev1",
  "liburing2",
] as const;

/** Depends on the kernel package of the day. */
export const KERNEL_META_PACKAGE = "linux-image-cloud-amd64";
/** Boot loader for UEFI machines; BIOS machines use the host's syslinux. */
export const UEFI_LOADER_PACKAGE = "systemd-boot-efi";

/** Kernel modules the initial RAM disk loads, besides those they depend on. ext4 and the serial line are built in. */
export const MODULES = [
  "virtio_pci",
  "virtio_blk",
  "virtio_scsi",
  "sd_mod",
  "virtio_console",
  "virtio_net",
  "button",
  "evdev",
] as const;

export const KERNEL_COMMAND_LINE = "console=tty0 console=ttyS0,115200 quiet loglevel=3 mitigations=off panic=-1";

/** OS disk: MBR, one FAT partition that both BIOS and UEFI boot from, one ext4 root. */
export const LAYOUT = {
  bootOffsetBytes: 1 * MiB,
  bootBytes: 48 * MiB,
  rootOffsetBytes: 49 * MiB,
  rootBytes: 143 * MiB,
  totalBytes: 192 * MiB,
} as const;

/** Changes whenever the recipe or one of the guest's own files does: the key of the cache. */
export function recipeId(): string {
  const here = import.meta.dirname;
  const hash = createHash("sha256");
  for (const folder of [here, join(here, "files")])
    for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1)))
      if (entry.isFile() && !entry.name.endsWith(".test.ts"))
        hash.update(`${entry.name}\0`).update(readFileSync(join(folder, entry.name)));
  return hash.digest("hex").slice(0, 16);
}
