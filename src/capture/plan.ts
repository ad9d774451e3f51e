/**
 * A capture as data: which disk is read how, under which names. Pure, so that tests walk it and the guard can hold
 * the undoing of it. The sequences behind it were measured against QEMU 7.2.22 and 10.0.13.
 */
import { type Bytes, bytes, CHUNK_BYTES, type DiskUid, GiB, MiB, StillpointError, type VmUid } from "../base/index.ts";
import type { CaptureId, DiskFacts, Incarnation, NvramFacts, ScratchRequest, VmFacts } from "../guard/protocol.ts";
import { versionRule } from "./versions.ts";

/** Names that a capture leaves in QEMU. All start with `sp-{server8}-`; no other name is ever touched. */
export interface DiskNames {
  readonly job: string;
  readonly target: string;
  readonly targetFile: string;
  readonly export: string;
}

export interface DiskPlan {
  readonly diskUid: DiskUid | "nvram";
  readonly node: string;
  readonly sizeBytes: Bytes;
  /** `pull`: we read a frozen export over a fleece. `push`: QEMU writes the state of the point into a staging file. */
  readonly method: "pull" | "push";
  /** `incremental` reads what the old bitmap names; `full-compared` reads all and compares with the anchor. */
  readonly kind: "full" | "incremental" | "full-compared";
  /** Why not incremental; null when it is, or when there is nothing to build on yet. */
  readonly fullReason: string | null;
  readonly names: DiskNames;
  readonly oldBitmap: string | null;
  readonly newBitmap: string | null;
  readonly persistentBitmap: boolean;
  /** Bitmaps of ours that nothing builds on: removed before the point in time. */
  readonly staleBitmaps: readonly string[];
  readonly scratch: ScratchRequest;
}

export interface CapturePlan {
  readonly schema: 1;
  readonly capture: CaptureId;
  readonly vm: VmUid;
  readonly incarnation: Incarnation;
  readonly status: string;
  readonly disks: readonly DiskPlan[];
  readonly freeze: boolean;
  readonly modeReason: string;
  readonly alarms: readonly string[];
  readonly notCaptured: readonly string[];
  readonly qemuVersion: string;
  readonly accelerator: "kvm" | "tcg";
}

/** A disk to capture: what the catalog knows of it. */
export interface PlannedDisk {
  readonly diskUid: DiskUid;
  readonly name: string;
  /** Where it is in QEMU: own VMs by node name, adopted ones by what the adoption found. */
  readonly node: string;
  readonly anchor: {
    readonly bitmap: string | null;
    readonly node: string | null;
    readonly sizeBytes: Bytes;
  } | null;
}

export interface PlanInput {
  readonly capture: CaptureId;
  /** Eight hex digits of this server's repository: keeps two servers on one QEMU apart. */
  readonly server8: string;
  readonly facts: VmFacts;
  readonly disks: readonly PlannedDisk[];
  readonly freeze: boolean;
  readonly modeReason: string;
  /** Somebody else's NBD server runs in this QEMU, which can have one at most: then every disk is pushed. */
  readonly foreignNbd?: boolean;
  /** Disks of QEMU that the point will not hold, in words. */
  readonly unknownDisks?: readonly string[];
}

/** Throws OperationNotAllowed, naming the disk and the remedy, when the VM's present state forbids a capture. */
export function planCapture(input: PlanInput): CapturePlan {
  const { facts } = input;
  if (facts.migrating)
    throw new StillpointError("OperationNotAllowed", "The virtual machine is being migrated.", {
      remedy: "Retry when the migration has ended.",
    });
  const rule = versionRule(facts.qemuVersion);
  const disks = input.disks.map((disk, index) => planDisk(input, disk, index, rule.iothreadDisks));
  const nvram = facts.nvram ? [planNvram(input, facts.nvram)] : [];
  return {
    schema: 1,
    capture: input.capture,
    vm: facts.vm,
    incarnation: facts.incarnation,
    status: facts.status,
    disks: [...disks, ...nvram],
    freeze: input.freeze,
    modeReason: input.modeReason,
    alarms: rule.tested ? [] : [`QEMU ${facts.qemuVersion} is not in the table of tested versions`],
    notCaptured: [...facts.uncapturable, ...(input.unknownDisks ?? [])],
    qemuVersion: facts.qemuVersion,
    accelerator: facts.accelerator,
  };
}

function planDisk(input: PlanInput, disk: PlannedDisk, index: number, iothreadDisks: "pull" | "push"): DiskPlan {
  const facts = input.facts.disks.find((candidate) => candidate.node === disk.node);
  if (!facts)
    throw new StillpointError("OperationNotAllowed", `Disk '${disk.name}' was not found in the running QEMU.`, {
      target: "properties.excludeDisks",
      remedy: "It may have been changed behind Stillpoint's back; exclude it with excludeDisks, or attach it again.",
    });
  const busy = facts.filters.filter((driver) => driver !== "throttle");
  if (busy.length > 0)
    throw new StillpointError(
      "OperationNotAllowed",
      `Disk '${disk.name}' is in the hands of another job (${busy.join(", ")}).`,
      {
        remedy: "Retry when that job has ended, or exclude the disk with excludeDisks.",
      },
    );
  const method = input.foreignNbd ? "push" : facts.iothread ? iothreadDisks : "pull";
  const prefix = `sp-${input.server8}-`;
  const base = method === "pull" ? incrementBase(disk, facts) : pushBase(disk, input.foreignNbd === true);
  const names = namesFor(input, `${index}`);
  return {
    diskUid: disk.diskUid,
    node: facts.node,
    sizeBytes: facts.sizeBytes,
    method,
    kind: base.kind,
    fullReason: base.reason,
    names,
    oldBitmap: base.bitmap,
    // A pushed disk is copied whole and compared, so a bitmap would be kept for nobody.
    newBitmap: method === "pull" && !facts.readOnly ? `${prefix}${input.capture}-${disk.diskUid.slice(0, 8)}` : null,
    persistentBitmap: input.facts.kind === "own" && facts.qcow2Version === 3 && !facts.readOnly,
    staleBitmaps: facts.bitmaps.map((b) => b.name).filter((b) => b.startsWith(prefix) && b !== base.bitmap),
    scratch: scratchFor(method, `${index}`, facts.sizeBytes, facts.allocatedBytes),
  };
}

interface Base {
  readonly kind: DiskPlan["kind"];
  readonly bitmap: string | null;
  readonly reason: string | null;
}

/** An increment only where it is provable; each refusal says why, for the record. */
function incrementBase(disk: PlannedDisk, facts: DiskFacts): Base {
  const { anchor } = disk;
  if (!anchor) return { kind: "full", bitmap: null, reason: null };
  const refuse = (reason: string): Base => ({ kind: "full-compared", bitmap: null, reason });
  if (anchor.sizeBytes !== facts.sizeBytes)
    return { kind: "full", bitmap: null, reason: "the disk's size has changed" };
  if (!anchor.bitmap) return refuse("the point before left no bitmap");
  if (anchor.node !== facts.node) return refuse("the disk's top node has changed");
  const bitmap = facts.bitmaps.find((candidate) => candidate.name === anchor.bitmap);
  if (!bitmap) return refuse("the bitmap is gone (the virtual machine's process was restarted)");
  if (bitmap.inconsistent) return refuse("the bitmap is inconsistent (QEMU did not end cleanly)");
  if (!bitmap.recording) return refuse("the bitmap is not recording");
  if (bitmap.granularityBytes !== CHUNK_BYTES) return refuse("the bitmap has another granularity");
  return { kind: "incremental", bitmap: bitmap.name, reason: null };
}

function pushBase(disk: PlannedDisk, foreignNbd: boolean): Base {
  if (!disk.anchor) return { kind: "full", bitmap: null, reason: null };
  const reason = foreignNbd
    ? "an NBD server that is not Stillpoint's runs in this QEMU, so the disk was pushed"
    : "this QEMU can only push a disk that runs in an iothread";
  return { kind: "full-compared", bitmap: null, reason };
}

/** A UEFI variable store is one more member of the transaction, always pushed whole. */
function planNvram(input: PlanInput, nvram: NvramFacts): DiskPlan {
  return {
    diskUid: "nvram",
    node: nvram.node,
    sizeBytes: nvram.sizeBytes,
    method: "push",
    kind: "full",
    fullReason: null,
    names: namesFor(input, "n"),
    oldBitmap: null,
    newBitmap: null,
    persistentBitmap: false,
    staleBitmaps: [],
    scratch: scratchFor("push", "n", nvram.sizeBytes, nvram.sizeBytes),
  };
}

/** Node names end at 31 characters: `sp-` server8 `-` capture8 `-` member, one letter more for the two nodes. */
function namesFor(input: PlanInput, member: string): DiskNames {
  const stem = `sp-${input.server8}-${input.capture.replaceAll("-", "").slice(0, 8)}-${member}`;
  return { job: stem, export: stem, target: `${stem}t`, targetFile: `${stem}f` };
}

const FLEECE_MIN_BYTES = 256 * MiB;
const FLEECE_MAX_BYTES = 8 * GiB;

/**
 * A fleece takes what the guest overwrites during the copy: 5 % of the disk between 256 MiB and 8 GiB, and never more
 * than the whole disk needs. Staging takes all that is allocated. Both with room for qcow2's own tables.
 */
function scratchFor(method: "pull" | "push", name: string, sizeBytes: Bytes, allocatedBytes: Bytes): ScratchRequest {
  const tables = 2 * MiB + Math.ceil(sizeBytes / 4096);
  const whole = sizeBytes + tables;
  const reserve =
    method === "pull"
      ? Math.min(whole, Math.max(FLEECE_MIN_BYTES, Math.min(FLEECE_MAX_BYTES, Math.ceil(sizeBytes / 20))))
      : Math.min(whole, Math.ceil(allocatedBytes * 1.02) + 64 * MiB + tables);
  return {
    name,
    kind: method === "pull" ? "fleece" : "staging",
    virtualSizeBytes: sizeBytes,
    reserveBytes: bytes(reserve),
  };
}
