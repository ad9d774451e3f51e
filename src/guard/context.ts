import type { Clock, Probe, Random } from "../base/index.ts";
import type { CaptureState, VmState } from "./protocol.ts";
import type { SpaceRule } from "./space.ts";

/** Where the guard reports; pino in production. */
export interface GuardLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** What the guard is told: the part of the configuration it needs, and its sources of time and randomness. */
export interface GuardOptions {
  readonly dataDir: string;
  readonly captureDir: string;
  /** Folders below which sockets of adopted VMs are accepted. */
  readonly socketDirs: readonly string[];
  readonly qemu: {
    /** Program and leading arguments. */
    readonly system: readonly string[];
    readonly firmwareCode: string;
  };
  readonly accelerator: "kvm" | "tcg";
  readonly clock: Clock;
  readonly random: Random;
  readonly log: GuardLog;
  readonly spaceRule: SpaceRule;
  /** Told before and after each journal record and each step; tests end the process there. */
  readonly probe: Probe;
}

/** Tells the connected services. */
export interface Announce {
  vm(state: VmState): void;
  capture(state: CaptureState): void;
}
