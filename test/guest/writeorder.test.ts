/**
 * Write order across disks: a guest writes number n with fsync to A, then to B, then to C. In a point without a freeze
 * the last numbers must be a >= b >= c >= a-1, or no single instant can have left them; B runs in an iothread, so on
 * QEMU 7.2 it is pushed while the others are pulled. The file systems need nothing but their journals.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { buildGuest, LAYOUT } from "../../setup/guest/index.ts";
import { MiB, type ResourceId, systemClock } from "../../src/base/index.ts";
import type { RestorePoint } from "../../src/domain/index.ts";
import { connectConsole, type GuestConsole } from "../../src/programs/quickstart/console.ts";
import { type BootSequence, inWriteOrder, lastNumbers, readSequence } from "../../src/programs/quickstart/sequences.ts";
import { agentAnswers, bootVm, dataDisks, openStack, putCollection, type Stack, takePoint } from "./lib/stack.ts";
import { readPoint } from "./lib/truth.ts";

const TRIXIE = "/var/cache/stillpoint/qemu-trixie";
execFileSync("sh", [join(import.meta.dirname, "../../setup/qemu-trixie.sh"), TRIXIE], { stdio: "inherit" });

const SLOW_MS = 240_000;
const POINTS = 5;

for (const { label, qemu } of [
  { label: "QEMU 7.2" },
  { label: "QEMU 10.0", qemu: [`${TRIXIE}/qemu-system-x86_64`] },
] as const)
  describe(`write order over three disks on ${label}`, () => {
    let stack: Stack;
    let collection: ResourceId;
    let guest: GuestConsole;
    /** The sequences of each point's disks. */
    const points: (readonly (readonly BootSequence[])[])[] = [];

    before(async () => {
      const { osDisk } = await buildGuest(() => {});
      stack = await openStack(qemu ? { qemu } : {});
      const data = await dataDisks(stack, 64 * MiB);
      const vm = await bootVm(stack, "vm", [
        { name: "os", from: osDisk, format: "qcow2" },
        { name: "b", from: data.b, format: "qcow2", iothread: true },
        { name: "c", from: data.c, format: "raw" },
      ]);
      await agentAnswers(stack, vm);
      collection = await putCollection(stack, vm);
      guest = await connectConsole(join(stack.config.dataDir, "vms", vm.vmUid, "console.sock"), systemClock);
      while ((await written()) < 20) await systemClock.sleep(100);
    });
    after(async () => {
      guest?.close();
      await stack?.close();
    });

    const written = async () => Number((await guest.run("cat /run/written 2>/dev/null || echo 0", SLOW_MS)).trim());

    async function sequencesOf(point: RestorePoint): Promise<readonly (readonly BootSequence[])[]> {
      const work = await mkdtemp(join(tmpdir(), "sp-order-"));
      try {
        return await Promise.all(
          point.disks.map(async (disk, index) => {
            const path = join(work, `${index}.raw`);
            await readPoint(stack.repository, disk, path);
            const part = index === 0 ? { offsetBytes: LAYOUT.rootOffsetBytes, sizeBytes: LAYOUT.rootBytes } : {};
            return readSequence({ path, format: "raw", ...part });
          }),
        );
      } finally {
        await rm(work, { recursive: true, force: true });
      }
    }

    test("each point stands at one instant, after all that was confirmed and before all that came later", async () => {
      for (let index = 0; index < POINTS; index++) {
        const confirmed = await written();
        const point = await takePoint(stack, collection, `p${index}`);
        const later = await written();
        const sequences = await sequencesOf(point);
        const last = lastNumbers(sequences);
        const said = `${point.name} ends at ${last.join(", ")}, between ${confirmed} and ${later}`;
        assert.ok(inWriteOrder(last), said);
        assert.ok(Math.min(...last) >= confirmed && Math.max(...last) <= later + 1, said);
        points.push(sequences);
      }
    });

    test("disks of two points together do not pass for one instant", () => {
      const [first = [], second = []] = [points[0], points[POINTS - 1]];
      for (const mixed of [
        [first[0], second[1], second[2]],
        [second[0], first[1], second[2]],
        [second[0], second[1], first[2]],
      ])
        assert.ok(!inWriteOrder(lastNumbers(mixed.map((disk) => disk ?? []))), "the check can tell");
    });
  });
