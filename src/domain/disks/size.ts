import { type Bytes, GiB, StillpointError } from "../../base/index.ts";

const SECTOR_BYTES = 512;
/** Azure's largest managed disk is 32 TiB; ours end where qcow2 with 64 KiB clusters is well tried. */
const MAX_DISK_BYTES = 64 * 1024 * GiB;

/** A size a disk may have, or InvalidParameter. */
export function checkSize(sizeBytes: Bytes | null): Bytes {
  if (sizeBytes !== null && sizeBytes > 0 && sizeBytes <= MAX_DISK_BYTES && sizeBytes % SECTOR_BYTES === 0)
    return sizeBytes;
  throw new StillpointError("InvalidParameter", "An empty disk needs a size.", {
    target: "properties.diskSizeGB",
    remedy: "Give a whole number of GiB from 1 to 65536 (or bytes, a multiple of 512).",
  });
}
