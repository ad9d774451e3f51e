/** What passes between the pool and its workers. Bulk data lies in shared or handed-over memory, never in a message. */
import { CHUNK_BYTES, MiB } from "../../base/index.ts";
import { TAG_BYTES } from "../../keys/index.ts";
import { ID_BYTES } from "../format/node.ts";
import type { Encoding } from "../format/pack.ts";

/** A run is what one job works on: 16 chunks. */
export const RUN_BYTES = MiB;
export const RUN_CHUNKS = RUN_BYTES / CHUNK_BYTES;
/** A frame is up to 4 neighbouring chunks: measured 1.02 × bare zstd in size, and the best throughput. */
export const FRAME_CHUNKS = 4;

/** One slot of shared memory: input | ids | output. A run of single-chunk frames that do not shrink fits the output. */
export const SLOT_IDS_AT = RUN_BYTES;
export const SLOT_OUT_AT = SLOT_IDS_AT + RUN_CHUNKS * ID_BYTES;
export const SLOT_BYTES_TOTAL = SLOT_OUT_AT + RUN_BYTES + RUN_CHUNKS * TAG_BYTES;

export interface DomainKeyMaterial {
  readonly domain: string;
  readonly chunkIdKey: Uint8Array;
  readonly nodeIdKey: Uint8Array;
}

export interface WorkerSetup {
  readonly slots: readonly SharedArrayBuffer[];
}

/** Where a job's plaintext is: in its slot, or in the caller's own shared memory. */
export interface Input {
  readonly shared: SharedArrayBuffer | null;
  readonly offset: number;
}

/** Zero test and chunk ids of a run; the ids land in the slot, zeroes for a zero chunk. */
export interface IdentifyRequest {
  readonly op: "identify";
  readonly slot: number;
  readonly input: Input;
  readonly chunks: number;
  readonly keys: DomainKeyMaterial;
}

export interface FrameToSeal {
  /** Byte range of the run. */
  readonly from: number;
  readonly length: number;
  readonly kind: number;
  readonly ordinal: number;
  readonly slots: Uint8Array;
}

/** Compresses and encrypts frames of a run into the slot's output. */
export interface SealRequest {
  readonly op: "seal";
  readonly slot: number;
  readonly input: Input;
  readonly domain: string;
  readonly packId: Uint8Array;
  readonly packKey: Uint8Array;
  readonly frames: readonly FrameToSeal[];
}

export interface SealedFrame {
  /** In the slot's output. */
  readonly offset: number;
  readonly storedBytes: number;
  readonly encoding: Encoding;
}

/** One frame to open, and which of its slots go where in the output (-1: only checked). */
export interface FrameToOpen {
  readonly sealed: Uint8Array;
  readonly packId: Uint8Array;
  readonly packKey: Uint8Array;
  readonly kind: number;
  readonly ordinal: number;
  readonly encoding: number;
  readonly plainBytes: number;
  readonly slots: Uint8Array;
  readonly takes: readonly { readonly slot: number; readonly to: number }[];
}

export interface OpenRequest {
  readonly op: "open";
  readonly keys: DomainKeyMaterial;
  readonly outBytes: number;
  readonly frames: readonly FrameToOpen[];
}

export interface OpenFailure {
  readonly frame: number;
  /** Slots within the frame. */
  readonly slots: readonly number[];
  readonly problem: string;
}

export interface OpenResult {
  readonly out: Uint8Array;
  readonly failures: readonly OpenFailure[];
}

export type Request = IdentifyRequest | SealRequest | OpenRequest;
export type Reply =
  | { readonly job: number; readonly result: undefined | readonly SealedFrame[] | OpenResult }
  | { readonly job: number; readonly error: string };
