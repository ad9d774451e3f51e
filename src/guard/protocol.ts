/**
 * The wire between service and guard: JSON lines over a unix socket, all that other folders may import from here.
 *
 * The guard is the only client of every QMP and agent socket. It knows nothing of catalogs and repositories: a capture
 * reaches it as data (named QMP steps), together with the steps that undo it, which it journals before the first of
 * them runs. So it can give a capture up alone, while the service is dead, hung or silent.
 */
import type { Brand, Bytes, VmUid } from "../base/index.ts";
import type { MachineSpec, QemuFacts } from "../hypervisors/qemu/index.ts";

/** One attempt at a point: never re-used, and part of every name that the attempt leaves in QEMU. */
export type CaptureId = Brand<string, "CaptureId">;
/** One life of one QEMU process, marked inside it: a random id, new at each start. */
export type Incarnation = Brand<string, "Incarnation">;

// ---------------------------------------------------------------- machines

export type {
  AdoptedMachine,
  BitmapFacts,
  DiskBus,
  DiskFacts,
  DiskFormat,
  MachineDisk,
  MachineNic,
  MachineSpec,
  NvramFacts,
} from "../hypervisors/qemu/index.ts";

/** What one QEMU process says of itself right now. */
export interface VmFacts extends QemuFacts {
  readonly vm: VmUid;
  readonly kind: "own" | "adopted";
  readonly incarnation: Incarnation;
  readonly pid: number | null;
  /** `connected`: the channel is open and the agent answered a sync within 3 s. `absent`: no channel, or nobody in it. */
  readonly agent: "connected" | "silent" | "absent";
}

export type ProcessState =
  /** QEMU runs and its monitor answers. */
  | "up"
  /** No QEMU process. */
  | "down"
  /** The process is there, the monitor does not answer (a foreign client holds it, or QEMU hangs). */
  | "unreachable";

export interface VmState {
  readonly vm: VmUid;
  readonly kind: "own" | "adopted";
  readonly process: ProcessState;
  readonly status: string | null;
  readonly incarnation: Incarnation | null;
  readonly pid: number | null;
  /** Why it is down or stopped, when the guard knows: `guest-shutdown`, `io-error on d-…`, `exit code 1: …`. */
  readonly reason: string | null;
  /** Set while a deallocate waits for open captures to end. */
  readonly quitting: boolean;
}

// ---------------------------------------------------------------- captures

/** One QMP command of a plan, by name, so that a crash test can stop before and after each. */
export interface QmpStep {
  readonly name: string;
  readonly execute: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  /** Substrings of an error's description that mean "this is already so". The step then counts as done. */
  readonly tolerate?: readonly string[];
  /** Wait, after the command, until this job has ended (`concluded`, or gone). */
  readonly untilJobEnds?: string;
}

/** What undoes a capture. The guard journals both lists before it runs anything of the capture. */
export interface GiveUpSteps {
  /** When the point in time was not taken (or the transaction failed, which leaves nothing). */
  readonly before: readonly QmpStep[];
  /** When it was: jobs cancelled, exports closed, bitmaps merged back so that the old anchor stays usable. */
  readonly after: readonly QmpStep[];
}

/** A file in the capture folder with its bytes reserved (`fallocate --keep-size`). */
export interface ScratchRequest {
  /** [a-z0-9-]{1,40}, unique within the capture. */
  readonly name: string;
  readonly kind: "fleece" | "staging";
  readonly virtualSizeBytes: Bytes;
  readonly reserveBytes: Bytes;
}

export interface CaptureOpen {
  readonly capture: CaptureId;
  readonly vm: VmUid;
  readonly incarnation: Incarnation;
  readonly giveUp: GiveUpSteps;
  /** Jobs that must be running until the last byte is read; one that fails or vanishes ends the capture. */
  readonly jobs: readonly string[];
  /** Without a word from the service for this long the guard gives the capture up. */
  readonly silenceMs: number;
}

/** How the point in time is taken. The guard holds the deadlines and thaws on every path. */
export interface InstantRequest {
  readonly transaction: QmpStep;
  /** Freeze guest file systems around the transaction; at most this long between freeze command and thaw answer. */
  readonly freeze: { readonly deadlineMs: number } | null;
  /** Refuse when the VM is not in one of these run states at the instant. */
  readonly statuses: readonly string[];
}

export interface FreezeFacts {
  readonly frozenFilesystems: number;
  readonly thawedFilesystems: number;
  readonly freezeMs: number;
  readonly thawMs: number;
  /** From the freeze command to the thaw's answer. */
  readonly frozenMs: number;
  /** The transaction's answer came before the deadline, and the thaw returned at least as many as the freeze. */
  readonly held: boolean;
}

export interface InstantFacts {
  /** Server time right after the transaction's answer, ISO 8601 UTC. */
  readonly takenAt: string;
  readonly transactionMs: number;
  readonly statusAtInstant: string;
  readonly freeze: FreezeFacts | null;
}

/**
 * `open`: prepared, nothing frozen. `instant`: freeze or transaction under way (after a guard restart it decides by
 * what QEMU shows). `taken`: the frozen source is readable. `given-up`: undone; `reason` says why. `lost`: the QEMU
 * process is gone.
 */
export type CapturePhase = "open" | "instant" | "taken" | "given-up" | "lost";

export interface CaptureState {
  readonly capture: CaptureId;
  readonly vm: VmUid;
  readonly incarnation: Incarnation;
  readonly phase: CapturePhase;
  readonly reason: string | null;
  readonly instant: InstantFacts | null;
  /** Paths of its scratch files by name. */
  readonly scratch: Readonly<Record<string, string>>;
  /** Where QEMU's NBD server for this capture listens; null before it was asked for. */
  readonly nbdSocket: string | null;
}

// ---------------------------------------------------------------- calls

/**
 * Method → parameters and result. Every call is idempotent or says what a repeat does. Errors travel as
 * `{code, message}` of the table in base/errors.
 */
export interface GuardCalls {
  /**
   * The first call of a connection. With `events` the guard also tells its events: those after the given one when it
   * still has them, else (or with null) every present state once, and then what happens.
   */
  hello: {
    params: { version: number; events?: { epoch: string; after: number } | null };
    result: { version: number; guardPid: number; startedAt: string };
  };

  /** Starts QEMU for an own VM, or wakes the one that is there (guest off or paused: reset and continue). */
  "vm.start": { params: { spec: MachineSpec }; result: VmState };
  /** Ends the guest and keeps QEMU. Graceful: ACPI, up to `graceMs`, then hard. Already off: fine. */
  "vm.powerOff": { params: { vm: VmUid; graceMs: number }; result: VmState };
  /** Ends the guest at once and QEMU with a clean `quit`, as soon as no capture is open. Already down: fine. */
  "vm.deallocate": { params: { vm: VmUid; graceMs: number }; result: VmState };
  /** Forgets a VM that is down: its runtime folder goes. */
  "vm.forget": { params: { vm: VmUid }; result: Record<string, never> };
  /** Adopts a QEMU started by somebody else. Greeting within 5 s or an error that tells how to add a monitor. */
  "vm.adopt": { params: { vm: VmUid; qmpSocket: string; qgaSocket: string | null }; result: VmFacts };
  /** Takes every trace of ours out of an adopted QEMU (steps given) and lets its sockets go. */
  "vm.release": { params: { vm: VmUid; steps: readonly QmpStep[] }; result: Record<string, never> };
  "vm.list": { params: Record<string, never>; result: readonly VmState[] };
  /** Errors: ResourceNotFound (unknown), HypervisorUnavailable (down or silent). */
  "vm.inspect": { params: { vm: VmUid }; result: VmFacts };
  /**
   * Whose QEMU's one NBD server can be: tries to start ours, and stops it again unless a capture needs it. `foreign`:
   * somebody else's runs, and is left alone; then nothing can be pulled from this QEMU.
   */
  "vm.nbd": { params: { vm: VmUid }; result: { server: "ours" | "foreign" } };
  /** One allowed command outside a capture (`block_resize`, bitmap removal). */
  "vm.execute": { params: { vm: VmUid; step: QmpStep }; result: unknown };

  /** Journals the capture and its undoing. Same id and content again: the present state. */
  "capture.open": { params: CaptureOpen; result: CaptureState };
  /** Creates and reserves a scratch file; refused with InsufficientSpace when < 10 % or < 2 GiB would stay free. */
  "capture.scratch": { params: { capture: CaptureId; scratch: ScratchRequest }; result: { path: string } };
  /** Starts QEMU's NBD server on a socket in the capture folder, or says where it already listens. */
  "capture.serve": { params: { capture: CaptureId }; result: { socket: string } };
  /** One step. Also counts as a word from the service. */
  "capture.step": { params: { capture: CaptureId; step: QmpStep }; result: unknown };
  /** Takes the point in time. Not repeatable: phase must be `open`. */
  "capture.instant": { params: { capture: CaptureId } & InstantRequest; result: InstantFacts };
  /** A word from the service; answers with the truth: checks migration, incarnation, jobs and space right now. */
  "capture.check": { params: { capture: CaptureId }; result: CaptureState };
  /** Undoes it now, with the journaled steps. Repeatable; the state stays until closed. */
  "capture.giveUp": { params: { capture: CaptureId; reason: string }; result: CaptureState };
  /** Runs the release steps, ends our NBD server if no capture needs it, removes scratch files, forgets. Repeatable. */
  "capture.close": { params: { capture: CaptureId; steps: readonly QmpStep[] }; result: Record<string, never> };
  "capture.list": { params: Record<string, never>; result: readonly CaptureState[] };
}

export type GuardMethod = keyof GuardCalls;

/** Numbered from 1 in each life of the guard; `epoch` names that life. */
export interface GuardEvent {
  readonly epoch: string;
  readonly number: number;
  readonly kind: "vm" | "capture";
  readonly vm: VmUid;
  /** `vm`: the new VmState; `capture`: the new CaptureState. */
  readonly state: VmState | CaptureState;
}

/** The service's end of the wire. */
export interface Guard {
  /** Rejects with DeadlineExceeded after `timeoutMs` (default 30 s), HypervisorUnavailable while the guard is away. */
  call<M extends GuardMethod>(
    method: M,
    params: GuardCalls[M]["params"],
    timeoutMs?: number,
  ): Promise<GuardCalls[M]["result"]>;
  close(): Promise<void>;
}

export { type ConnectGuardOptions, connectGuard, guardSocketPath } from "./client.ts";
