/**
 * How long a guest's writes wait for a crash-consistent point: real points interleaved with shams that send the same
 * QMP traffic but no transaction. The guest's own log of its writes is the judge: each line has the guest's time, so
 * the gap between two lines is what one write with its fsync took.
 */
import { join } from "node:path";
import { buildGuest } from "../setup/guest/index.ts";
import { MiB, type ResourceId, systemClock, systemRandom } from "../src/base/index.ts";
import { type CapturePlan, planCapture } from "../src/capture/plan.ts";
import { giveUpSteps, prepareSteps, transactionStep } from "../src/capture/steps.ts";
import type { Vm } from "../src/domain/index.ts";
import type { CaptureId } from "../src/guard/protocol.ts";
import { readSequenceFile } from "../src/programs/quickstart/sequences.ts";
import {
  agentAnswers,
  bootVm,
  dataDisks,
  openStack,
  putCollection,
  type Stack,
  takePoint,
} from "../test/guest/lib/stack.ts";
import { readPoint } from "../test/guest/lib/truth.ts";
import { type Row, row } from "./lib/report.ts";
import { median } from "./lib/time.ts";

const ALIGNING_POINTS = 6;
const LINE_BYTES = 36;

interface Instant {
  readonly sham: boolean;
  /** Host time around the moment: nothing of it lies outside. */
  readonly fromMs: number;
  readonly toMs: number;
}

/** `pairs` real points and as many shams, in turn. */
export async function benchStall(pairs: number): Promise<readonly Row[]> {
  const guest = await buildGuest(() => {});
  const stack = await openStack();
  try {
    const data = await dataDisks(stack, 64 * MiB);
    const vm = await bootVm(stack, "vm", [
      { name: "os", from: guest.osDisk, format: "qcow2" },
      { name: "b", from: data.b, format: "qcow2" },
      { name: "c", from: data.c, format: "raw" },
    ]);
    await agentAnswers(stack, vm);
    const offset = await clockOffset(stack, await putCollection(stack, vm));
    const instants: Instant[] = [];
    for (let i = 0; i < pairs; i++)
      for (const sham of i % 2 === 0 ? [false, true] : [true, false]) {
        instants.push(await oneInstant(stack, vm, sham));
        await systemClock.sleep(30 + (systemRandom.bytes(1)[0] as number) / 4);
      }
    await stack.done(await stack.domain.deallocateVm(vm.id));
    const writes = await guestWrites(stack);
    return rowsOf(instants, writes, offset);
  } finally {
    await stack.close();
  }
}

/**
 * Guest time minus host time. A point's last line was written before the host's instant and the next one after it:
 * each point bounds the offset from both sides, and the tightest bounds win.
 */
async function clockOffset(stack: Stack, collection: ResourceId): Promise<number> {
  let low = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < ALIGNING_POINTS; i++) {
    const point = await takePoint(stack, collection, `align-${i}`);
    const disk = point.disks[2];
    if (!disk || point.takenAt === null) throw new Error("a point without its disk");
    const file = join(stack.dir, "align.raw");
    await readPoint(stack.repository, disk, file);
    const lines = times(await readSequenceFile({ path: file, format: "raw" }));
    low = Math.max(low, (lines.at(-1) ?? 0) - Date.parse(point.takenAt));
  }
  return low;
}

async function oneInstant(stack: Stack, vm: Vm, sham: boolean): Promise<Instant> {
  const plan = await plannedNow(stack, vm);
  const { capture } = plan;
  const { guard } = stack;
  await guard.call("capture.open", {
    capture,
    vm: vm.vmUid,
    incarnation: plan.incarnation,
    giveUp: giveUpSteps(plan),
    jobs: plan.disks.map((disk) => disk.names.job),
    silenceMs: 60_000,
  });
  const paths: Record<string, string> = {};
  for (const { scratch } of plan.disks)
    paths[scratch.name] = (await guard.call("capture.scratch", { capture, scratch })).path;
  for (const step of prepareSteps(plan, paths)) await guard.call("capture.step", { capture, step });
  const fromMs = systemClock.now().getTime();
  if (sham) await guard.call("capture.step", { capture, step: { name: "sham", execute: "query-jobs", arguments: {} } });
  else
    await guard.call("capture.instant", {
      capture,
      transaction: transactionStep(plan),
      freeze: null,
      statuses: ["running"],
    });
  const toMs = systemClock.now().getTime();
  await guard.call("capture.giveUp", { capture, reason: "measured" });
  await guard.call("capture.close", { capture, steps: [] });
  return { sham, fromMs, toMs };
}

async function plannedNow(stack: Stack, vm: Vm): Promise<CapturePlan> {
  const facts = await stack.guard.call("vm.inspect", { vm: vm.vmUid });
  const disks = await Promise.all(
    [vm.osDisk, ...vm.dataDisks].map(async (attached, index) => {
      const disk = await stack.domain.getDisk((attached as { diskId: ResourceId }).diskId);
      return { diskUid: disk.diskUid, name: disk.name, node: facts.disks[index]?.node ?? "", anchor: null };
    }),
  );
  const capture = systemRandom.uuid() as CaptureId;
  const server8 = "00000000";
  return planCapture({ capture, server8, facts, disks, freeze: false, modeReason: "measured" });
}

/** Every write of the guest: when it began (guest time) and when the next one did. */
async function guestWrites(stack: Stack): Promise<readonly number[]> {
  const pool = join(stack.dir, "pool");
  const images = [
    { path: join(pool, "vm-b.qcow2"), format: "qcow2" as const },
    { path: join(pool, "vm-c.raw"), format: "raw" as const },
  ];
  const all = await Promise.all(images.map(async (image) => times(await readSequenceFile(image))));
  return all.flat().sort((a, b) => a - b);
}

function times(file: Buffer): readonly number[] {
  const found: number[] = [];
  for (let at = 0; at + LINE_BYTES <= file.length; at += LINE_BYTES)
    found.push(Number(file.toString("latin1", at + 22, at + 35)));
  return found;
}

function rowsOf(instants: readonly Instant[], writes: readonly number[], offsetMs: number): readonly Row[] {
  const worst = (sham: boolean) =>
    instants
      .filter((one) => one.sham === sham)
      .map((one) => worstOverlap(writes, one.fromMs + offsetMs, one.toMs + offsetMs));
  const real = worst(false);
  const shams = worst(true);
  const difference = mean(real) - mean(shams);
  const margin = 1.96 * Math.sqrt(variance(real) / real.length + variance(shams) / shams.length);
  const interval = [difference - margin, difference + margin].map((ms) => Math.round(ms * 10) / 10);
  const details = { points: real.length, realMs: real, shamMs: shams, guestMinusHostMs: offsetMs };
  return [
    row(
      `guest stall, crash-consistent (TCG): ${real.length} points, ${shams.length} shams`,
      `worst write ${Math.round(median(real))} ms, sham ${Math.round(median(shams))} ms; difference ${interval[0]} to ${interval[1]} ms`,
      "95 % interval ≤ 10 ms",
      (interval[1] as number) <= 10,
      details,
    ),
  ];
}

/** The longest gap between two lines that has a part in the window. `writes` is sorted. */
function worstOverlap(writes: readonly number[], fromMs: number, toMs: number): number {
  let low = 0;
  let high = writes.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((writes[middle] as number) < fromMs) low = middle + 1;
    else high = middle;
  }
  let worst = 0;
  for (let i = Math.max(1, low); i < writes.length; i++) {
    const begin = writes[i - 1] as number;
    if (begin > toMs) break;
    worst = Math.max(worst, (writes[i] as number) - begin);
  }
  return worst;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function variance(values: readonly number[]): number {
  const middle = mean(values);
  return values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / Math.max(1, values.length - 1);
}
