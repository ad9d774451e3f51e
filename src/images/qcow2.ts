import { StillpointError } from "../base/index.ts";

/** What the header of a qcow2 image says, checked. */
export interface Qcow2Facts {
  readonly version: 2 | 3;
  readonly sizeBytes: number;
  readonly clusterBytes: number;
}

/** All that is ever read of an image to judge it. */
export const QCOW2_HEADER_BYTES = 64 * 1024;
/** Azure's largest disk; also far below every limit of the format with its common cluster sizes. */
export const MAX_DISK_BYTES = 64 * 1024 ** 4;

const MAGIC = 0x514649fb; // "QFI\xfb"
const V2_HEADER_BYTES = 72;
const V3_HEADER_BYTES = 104;
// Limits QEMU itself sets when it opens an image.
const MAX_L1_BYTES = 32 * 1024 * 1024;
const MAX_REFCOUNT_TABLE_BYTES = 8 * 1024 * 1024;
const MAX_SNAPSHOTS = 65536;

const INCOMPATIBLE_DIRTY = 1n << 0n;
const INCOMPATIBLE_CORRUPT = 1n << 1n;
const INCOMPATIBLE_DATA_FILE = 1n << 2n;
const INCOMPATIBLE_COMPRESSION = 1n << 3n;
const INCOMPATIBLE_EXTENDED_L2 = 1n << 4n;
/** QEMU mends a dirty refcount table when it opens the image for writing; extended L2 and zstd it reads. */
const INCOMPATIBLE_FINE = INCOMPATIBLE_DIRTY | INCOMPATIBLE_COMPRESSION | INCOMPATIBLE_EXTENDED_L2;

const EXTENSION_END = 0;
const EXTENSION_DATA_FILE = 0x44415441;
const EXTENSION_ENCRYPTION = 0x0537be77;

/**
 * Judges a qcow2 image by its first bytes (≤ 64 KiB, `fileBytes` in all) before QEMU may open it: version 2 or 3,
 * self-contained, unencrypted, sane. Layout: docs/interop/qcow2 of QEMU. Throws InvalidParameter with the reason.
 */
export function parseQcow2(head: Buffer, fileBytes: number): Qcow2Facts {
  if (head.length < V2_HEADER_BYTES || head.readUInt32BE(0) !== MAGIC) throw bad("it has no qcow2 header");
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw bad(`it is qcow2 version ${version}; versions 2 and 3 are known`);
  if (head.readBigUInt64BE(8) !== 0n || head.readUInt32BE(16) !== 0)
    throw bad("it has a backing file", "Flatten it first: qemu-img convert -O qcow2 OLD NEW.");
  if (head.readUInt32BE(32) !== 0) throw bad("it is encrypted", "Decrypt it first with qemu-img convert.");
  const clusterBits = head.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21) throw bad(`its clusters would be 2^${clusterBits} bytes`);
  const clusterBytes = 2 ** clusterBits;
  const headerBytes = version === 3 ? checkVersion3(head) : V2_HEADER_BYTES;
  const sizeBytes = checkSize(head, clusterBytes, version === 3 && hasExtendedL2(head) ? 16 : 8);
  checkTables(head, clusterBytes, fileBytes);
  checkExtensions(head, headerBytes, clusterBytes);
  return { version, sizeBytes, clusterBytes };
}

const hasExtendedL2 = (head: Buffer) => (head.readBigUInt64BE(72) & INCOMPATIBLE_EXTENDED_L2) !== 0n;

/** The fields that version 3 added. Returns the header's length. */
function checkVersion3(head: Buffer): number {
  if (head.length < V3_HEADER_BYTES) throw bad("its header is cut short");
  const features = head.readBigUInt64BE(72);
  if (features & INCOMPATIBLE_DATA_FILE) throw bad("its data lie in another file", "Convert it with qemu-img convert.");
  if (features & INCOMPATIBLE_CORRUPT) throw bad("it is marked corrupt", "Try qemu-img check -r all on a copy.");
  const unknown = features & ~(INCOMPATIBLE_FINE | INCOMPATIBLE_DATA_FILE | INCOMPATIBLE_CORRUPT);
  if (unknown !== 0n) throw bad(`it needs features that are not known here (0x${unknown.toString(16)})`);
  if (head.readUInt32BE(96) > 6) throw bad("its reference counts are too wide");
  const headerBytes = head.readUInt32BE(100);
  if (headerBytes < V3_HEADER_BYTES || headerBytes % 8 !== 0 || headerBytes > head.length)
    throw bad(`its header claims ${headerBytes} bytes`);
  const compression = headerBytes > V3_HEADER_BYTES ? head.readUInt8(V3_HEADER_BYTES) : 0;
  if (compression > 1) throw bad("its compression is not known here");
  return headerBytes;
}

/** `entryBytes`: of an L2 table entry. */
function checkSize(head: Buffer, clusterBytes: number, entryBytes: number): number {
  const size = head.readBigUInt64BE(24);
  if (size === 0n || size > BigInt(MAX_DISK_BYTES)) throw bad(`its virtual size is ${size} bytes`);
  if (size % 512n !== 0n) throw bad(`its virtual size, ${size} bytes, is no multiple of 512`);
  const perEntry = clusterBytes * (clusterBytes / entryBytes);
  const needed = Math.ceil(Number(size) / perEntry);
  const entries = head.readUInt32BE(36);
  if (entries < needed || entries * 8 > MAX_L1_BYTES)
    throw bad(`its first table has ${entries} entries where ${needed} are needed`);
  return Number(size);
}

/** The tables lie on cluster borders and start inside the file. */
function checkTables(head: Buffer, clusterBytes: number, fileBytes: number): void {
  const l1End = head.readBigUInt64BE(40) + BigInt(head.readUInt32BE(36) * 8);
  if (l1End > BigInt(fileBytes)) throw bad("its first table ends beyond the file: it is cut short");
  if (head.readUInt32BE(56) * clusterBytes > MAX_REFCOUNT_TABLE_BYTES) throw bad("its refcount table is too large");
  if (head.readUInt32BE(60) > MAX_SNAPSHOTS) throw bad("it claims too many snapshots");
  for (const [at, name] of [
    [40, "first table"],
    [48, "refcount table"],
    [64, "snapshot table"],
  ] as const) {
    const offset = head.readBigUInt64BE(at);
    if (offset % BigInt(clusterBytes) !== 0n || offset > BigInt(fileBytes))
      throw bad(`its ${name} lies in a wrong place`);
  }
  if (head.readBigUInt64BE(40) === 0n || head.readBigUInt64BE(48) === 0n) throw bad("a table is missing");
}

/** Extensions lie between header and end of the first cluster; each names its length. */
function checkExtensions(head: Buffer, headerBytes: number, clusterBytes: number): void {
  const end = Math.min(clusterBytes, head.length);
  for (let at = headerBytes; at + 8 <= end; ) {
    const type = head.readUInt32BE(at);
    const length = head.readUInt32BE(at + 4);
    if (type === EXTENSION_END) return;
    if (type === EXTENSION_DATA_FILE) throw bad("it names a data file", "Convert it with qemu-img convert.");
    if (type === EXTENSION_ENCRYPTION) throw bad("it is encrypted", "Decrypt it first with qemu-img convert.");
    if (length > end - at - 8) throw bad("a header extension reaches beyond its place");
    at += 8 + Math.ceil(length / 8) * 8;
  }
  if (end < clusterBytes && end === QCOW2_HEADER_BYTES) throw bad("its header extensions do not end");
}

function bad(reason: string, remedy?: string): StillpointError {
  return new StillpointError("InvalidParameter", `The image cannot be used: ${reason}.`, remedy ? { remedy } : {});
}
