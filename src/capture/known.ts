/** Which of QEMU's disks is which of ours, and which are none. */
import { diskNode } from "../base/index.ts";
import type { Disk } from "../domain/index.ts";
import type { DiskFacts, VmFacts } from "../guard/protocol.ts";

/** Own VMs bear our node names; the disks of adopted ones are known by their files. */
export function diskIn(facts: VmFacts, disk: Disk): DiskFacts | undefined {
  const node = diskNode(disk.diskUid);
  return facts.disks.find((found) => found.node === node || (disk.path !== null && found.path === disk.path));
}

/** Disks of an adopted QEMU that its points do not hold, in words for the record: a restored machine will lack them. */
export function unknownDisks(facts: VmFacts, known: readonly Disk[]): readonly string[] {
  if (facts.kind === "own") return [];
  const ours = new Set(known.map((disk) => diskIn(facts, disk)?.node));
  return facts.disks
    .filter((disk) => !ours.has(disk.node))
    .map((disk) => {
      const why =
        disk.path === ""
          ? `is no file (${disk.format})`
          : disk.readOnly
            ? "is read-only"
            : "was added after the import";
      return `disk ${disk.device}${disk.path === "" ? "" : ` at ${disk.path}`}, which ${why}`;
    });
}
