/** What needs a running QEMU: copying over NBD, the next point of a huge disk, and memory. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { KiB, MiB } from "../src/base/index.ts";
import type { Vm } from "../src/domain/index.ts";
import { bootVm, openStack, putCollection, type Stack, takePoint } from "../test/guest/lib/stack.ts";
import { type Row, row } from "./lib/report.ts";
import { median, seconds, treeBytes } from "./lib/time.ts";

const TIB = "1T";
const NEXT_POINTS = 10;

/** The idle guest has no operating system: its firmware waits, its disks lie still. */
export async function benchHugeDisk(): Promise<readonly Row[]> {
  const stack = await openStack();
  try {
    const path = join(stack.dir, "huge.qcow2");
    execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", path, TIB]);
    execFileSync("qemu-io", ["-f", "qcow2", "-c", "write -q -P 3 0 64M", "-c", "write -q -P 5 512G 64M", path]);
    const vm = await bootVm(stack, "huge", [{ name: "os", from: path, format: "qcow2" }]);
    const collection = await putCollection(stack, vm);
    await takePoint(stack, collection, "first");
    const times: number[] = [];
    const before = await storedBytes(stack);
    for (let i = 0; i < NEXT_POINTS; i++) times.push(await seconds(() => takePoint(stack, collection, `next-${i}`)));
    const each = ((await storedBytes(stack)) - before) / NEXT_POINTS;
    const memory = pssMiB(process.pid);
    const guard = await guardPid(stack);
    return [
      row("next point, nothing changed, 1 TiB disk", `${median(times).toFixed(2)} s`, "< 2 s", median(times) < 2, {
        times,
      }),
      row(
        "the same: written to repository and catalog",
        `${Math.round(each / KiB)} KiB`,
        "< 100 KiB",
        each < 100 * KiB,
      ),
      row("memory: service with workers, 1 TiB disk (PSS)", `${memory} MiB`, "≤ 512 MiB", memory <= 512),
      row("memory: guard (PSS)", `${pssMiB(guard)} MiB`, "≤ 64 MiB", pssMiB(guard) <= 64),
    ];
  } finally {
    await stack.close();
  }
}

/** The same dense image as a raw disk of an idle QEMU, copied over NBD. */
export async function benchNbdCopy(image: string, sizeBytes: number): Promise<readonly Row[]> {
  const stack = await openStack();
  try {
    const vm: Vm = await bootVm(stack, "dense", [{ name: "os", from: image, format: "raw" }]);
    const collection = await putCollection(stack, vm);
    const time = await seconds(() => takePoint(stack, collection, "full"));
    return [
      row("full copy over NBD from an idle QEMU", `${Math.round(sizeBytes / MiB / time)} MiB/s`, "reported", null, {
        time,
      }),
    ];
  } finally {
    await stack.close();
  }
}

/** The catalog counts whole: its write-ahead log grows in steps, so the steps are part of the truth. */
async function storedBytes(stack: Stack): Promise<number> {
  return (
    (await treeBytes(stack.config.repository.path)) + (await treeBytes(join(stack.config.dataDir, "catalog.sqlite")))
  );
}

async function guardPid(stack: Stack): Promise<number> {
  const { guardPid: pid } = await stack.guard.call("hello", { version: 1 });
  return pid;
}

/** Proportional set size: shared pages counted by their share. */
function pssMiB(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  return Math.round(Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1]) / 1024);
}
