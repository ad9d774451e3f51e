import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, type DiskUid, GiB, MiB, type VmUid } from "../base/index.ts";
import type { BitmapFacts, CaptureId, DiskFacts, Incarnation, VmFacts } from "../guard/protocol.ts";
import { type PlanInput, planCapture } from "./plan.ts";
import { closeExportSteps, giveUpSteps, prepareSteps, releaseSteps, transactionStep } from "./steps.ts";

const UID = "11111111-2222-3333-4444-555555555555" as DiskUid;
const OLD = "sp-0a0b0c0d-old-11111111";

function bitmap(change: Partial<BitmapFacts> = {}): BitmapFacts {
  return {
    name: OLD,
    recording: true,
    inconsistent: false,
    persistent: true,
    granularityBytes: bytes(65536),
    dirtyBytes: bytes(0),
    ...change,
  };
}

function disk(change: Partial<DiskFacts> = {}): DiskFacts {
  return {
    node: "d-1",
    device: "/machine/peripheral/disk0",
    path: "/pool/a.qcow2",
    format: "qcow2",
    qcow2Version: 3,
    sizeBytes: bytes(GiB),
    allocatedBytes: bytes(100 * MiB),
    iothread: false,
    readOnly: false,
    serial: "s",
    bootIndex: 1,
    filters: [],
    bitmaps: [bitmap()],
    stopsOnWriteError: true,
    ...change,
  };
}

function facts(change: Partial<VmFacts> = {}): VmFacts {
  return {
    vm: "v" as VmUid,
    kind: "own",
    incarnation: "i" as Incarnation,
    pid: 1,
    qemuVersion: "7.2.22",
    status: "running",
    migrating: false,
    accelerator: "tcg",
    agent: "connected",
    disks: [disk()],
    nvram: null,
    jobs: [],
    exports: [],
    nodes: [],
    uncapturable: [],
    machine: null,
    ...change,
  };
}

function input(
  change: Partial<PlanInput> = {},
  anchor: PlanInput["disks"][number]["anchor"] = { bitmap: OLD, node: "d-1", sizeBytes: bytes(GiB) },
): PlanInput {
  return {
    capture: "aaaaaaaa-0000-0000-0000-000000000000" as CaptureId,
    server8: "0a0b0c0d",
    facts: facts(),
    disks: [{ diskUid: UID, name: "os", node: "d-1", anchor }],
    freeze: false,
    modeReason: "requested",
    ...change,
  };
}

const only = (given: PlanInput) => {
  const planned = planCapture(given).disks[0];
  assert.ok(planned);
  return planned;
};

test("an increment is used only where it is provable, and each refusal says why", () => {
  assert.equal(only(input()).kind, "incremental");
  assert.equal(only(input()).oldBitmap, OLD);
  assert.equal(only(input({}, null)).kind, "full");
  const refusals: readonly [string, PlanInput][] = [
    ["process was restarted", input({ facts: facts({ disks: [disk({ bitmaps: [] })] }) })],
    [
      "inconsistent",
      input({ facts: facts({ disks: [disk({ bitmaps: [bitmap({ inconsistent: true, recording: false })] })] }) }),
    ],
    ["not recording", input({ facts: facts({ disks: [disk({ bitmaps: [bitmap({ recording: false })] })] }) })],
    [
      "granularity",
      input({ facts: facts({ disks: [disk({ bitmaps: [bitmap({ granularityBytes: bytes(32768) })] })] }) }),
    ],
    ["top node", input({}, { bitmap: OLD, node: "other", sizeBytes: bytes(GiB) })],
    ["left no bitmap", input({}, { bitmap: null, node: null, sizeBytes: bytes(GiB) })],
  ];
  for (const [why, given] of refusals) {
    const planned = only(given);
    assert.equal(planned.kind, "full-compared", why);
    assert.match(planned.fullReason ?? "", new RegExp(why));
    assert.equal(planned.oldBitmap, null);
  }
  const resized = only(input({}, { bitmap: OLD, node: "d-1", sizeBytes: bytes(GiB / 2) }));
  assert.equal(resized.kind, "full");
  assert.match(resized.fullReason ?? "", /size/);
});

test("a bitmap that nothing builds on is removed, and a foreign one is never touched", () => {
  const bitmaps = [
    bitmap({ inconsistent: true }),
    bitmap({ name: "someone-elses" }),
    bitmap({ name: "sp-ffffffff-x" }),
  ];
  const plan = planCapture(input({ facts: facts({ disks: [disk({ bitmaps })] }) }));
  assert.deepEqual(plan.disks[0]?.staleBitmaps, [OLD]);
  const everything = JSON.stringify([
    prepareSteps(plan, { 0: "/capture/0" }),
    transactionStep(plan),
    releaseSteps(plan),
    giveUpSteps(plan),
  ]);
  assert.ok(!everything.includes("someone-elses"));
  assert.ok(!everything.includes("sp-ffffffff-x"));
});

test("every backup stands before every bitmap action, since the other order loses writes of iothread disks", () => {
  const disks = [disk(), disk({ node: "d-2", iothread: true }), disk({ node: "d-3" })];
  const plan = planCapture(
    input({
      facts: facts({ qemuVersion: "10.0.13", disks, nvram: { node: "pflash1", sizeBytes: bytes(540672), path: "/v" } }),
      disks: ["d-1", "d-2", "d-3"].map((node, i) => ({
        diskUid: `${i}${UID.slice(1)}` as DiskUid,
        name: node,
        node,
        anchor: { bitmap: OLD, node, sizeBytes: bytes(GiB) },
      })),
    }),
  );
  const actions = transactionStep(plan).arguments["actions"] as readonly {
    type: string;
    data: Record<string, unknown>;
  }[];
  const types = actions.map((action) => action.type);
  assert.equal(types.lastIndexOf("blockdev-backup"), 3, "three disks and the variable store");
  assert.ok(types.slice(4).every((type) => type.startsWith("block-dirty-bitmap-")));
  assert.deepEqual(types.slice(4), Array(3).fill(["block-dirty-bitmap-add", "block-dirty-bitmap-disable"]).flat());
  assert.deepEqual(
    actions.slice(0, 4).map((action) => action.data["sync"]),
    ["none", "none", "none", "full"],
  );
});

test("a disk in an iothread is pushed on 7.2 and on untested versions, pulled on 10.0", () => {
  const method = (qemuVersion: string) => {
    const plan = planCapture(input({ facts: facts({ qemuVersion, disks: [disk({ iothread: true })] }) }));
    return [plan.disks[0]?.method, plan.alarms.length];
  };
  assert.deepEqual(method("7.2.22"), ["push", 0]);
  assert.deepEqual(method("10.0.13"), ["pull", 0]);
  assert.deepEqual(method("11.0.1"), ["push", 1]);
});

test("a pushed disk leaves no bitmap and no export behind", () => {
  const plan = planCapture(input({ facts: facts({ disks: [disk({ iothread: true })] }) }));
  assert.equal(plan.disks[0]?.newBitmap, null);
  assert.deepEqual(closeExportSteps(plan), []);
  assert.deepEqual(plan.disks[0]?.staleBitmaps, [OLD]);
});

test("giving up closes the server's side first and joins the bitmaps in one transaction", () => {
  const plan = planCapture(input());
  const names = giveUpSteps(plan).after.map((step) => step.name);
  assert.deepEqual(names, ["close-export-0", "cancel-job-0", "dismiss-job-0", "remove-target-0", "rejoin-bitmaps-0"]);
  const rejoin = giveUpSteps(plan).after.at(-1)?.arguments["actions"] as readonly { type: string }[];
  assert.deepEqual(
    rejoin.map((action) => action.type),
    ["block-dirty-bitmap-merge", "block-dirty-bitmap-enable", "block-dirty-bitmap-remove"],
  );
});

test("a migration, a foreign job and a disk that is not there are refused with the remedy", () => {
  assert.throws(() => planCapture(input({ facts: facts({ migrating: true }) })), /migrated.*Retry/);
  assert.throws(
    () => planCapture(input({ facts: facts({ disks: [disk({ filters: ["mirror_top"] })] }) })),
    /another job.*excludeDisks/,
  );
  assert.throws(() => planCapture(input({ facts: facts({ disks: [] }) })), /not found.*exclude/);
});

test("names fit QEMU's 31 characters and scratch space is reserved within its bounds", () => {
  const sizes: readonly [number, number][] = [
    [MiB, 4 * MiB],
    [20 * GiB, GiB],
    [1024 * GiB, 8 * GiB],
  ];
  for (const [size, most] of sizes) {
    const planned = only(input({ facts: facts({ disks: [disk({ sizeBytes: bytes(size) })] }) }));
    assert.ok(planned.names.target.length <= 31 && planned.names.targetFile.length <= 31);
    assert.ok(planned.scratch.reserveBytes <= most, `${size}: ${planned.scratch.reserveBytes}`);
    assert.ok(planned.scratch.reserveBytes >= Math.min(size, 256 * MiB));
  }
});
