import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { checkStep } from "./allowed.ts";
import type { QmpStep } from "./protocol.ts";

const SCRATCH = "/capture/c1/0.qcow2";
const FILES = new Set([SCRATCH]);

function step(execute: string, args: Readonly<Record<string, unknown>> = {}): QmpStep {
  return { name: "test", execute, arguments: args };
}

function node(changes: Readonly<Record<string, unknown>> = {}, file: Readonly<Record<string, unknown>> = {}): QmpStep {
  const below = { driver: "file", "node-name": "sp-f", filename: SCRATCH, ...file };
  return step("blockdev-add", { driver: "qcow2", "node-name": "sp-n", backing: "d-0", file: below, ...changes });
}

const NAMES = { name: "sp-b", target: "sp-t", bitmaps: ["sp-b"], "job-id": "sp-j" };
const actions = (...types: readonly string[]) =>
  step("transaction", { actions: types.map((type) => ({ type, data: NAMES })) });

const merge = (bitmaps: readonly string[]) => ({ type: "block-dirty-bitmap-merge", data: { target: "sp-t", bitmaps } });

describe("what the guard runs", () => {
  for (const good of [
    node(),
    node({ backing: null }),
    step("block-export-add", { type: "nbd", id: "sp-e", "node-name": "sp-n", writable: false }),
    step("block-export-del", { id: "sp-e", mode: "hard" }),
    step("block-dirty-bitmap-remove", { node: "d-0", name: "sp-b" }),
    actions("block-dirty-bitmap-merge", "block-dirty-bitmap-enable", "block-dirty-bitmap-remove"),
  ])
    test(`a step may ${good.execute}`, () => checkStep(good, FILES, "step"));

  test("the instant is a transaction of backups and bitmaps", () => {
    checkStep(actions("blockdev-backup", "block-dirty-bitmap-add"), new Set(), "instant");
    assert.throws(() => checkStep(actions("blockdev-backup"), FILES, "step"), { code: "OperationNotAllowed" });
    assert.throws(() => checkStep(step("blockdev-del"), FILES, "instant"), { code: "OperationNotAllowed" });
  });

  const commands = [
    ...["quit", "stop", "cont", "system_reset", "system_powerdown", "migrate", "human-monitor-command", "qom-set"],
    ...["object-add", "object-del", "device_add", "device_del", "blockdev-backup", "blockdev-reopen", "netdev_add"],
    ...["nbd-server-start", "nbd-server-stop", "chardev-add", "add_client", "getfd", "dump-guest-memory", "pmemsave"],
    ...[
      "blockdev-snapshot",
      "blockdev-mirror",
      "drive-backup",
      "savevm",
      "screendump",
      "set_password",
      "xen-save-devices-state",
    ],
  ];
  for (const command of commands)
    test(`no step may ${command}`, () =>
      assert.throws(() => checkStep(step(command), FILES, "step"), { code: "OperationNotAllowed" }));

  const hostile: readonly (readonly [string, QmpStep])[] = [
    ["a file that is not its own", node({}, { filename: "/etc/shadow" })],
    ["another capture's file", node({}, { filename: "/capture/c2/0.qcow2" })],
    ["its own file by a detour", node({}, { filename: "/capture/c1/../c1/0.qcow2" })],
    ["a network driver", node({}, { driver: "nbd", filename: undefined })],
    ["a driver below with options of its own", node({}, { "server.path": "/run/x.sock" })],
    ["a node to be opened as backing", node({ backing: { driver: "file", filename: "/etc/shadow" } })],
    ["a data file", node({ "data-file": { driver: "file", filename: "/etc/shadow" } })],
    ["a JSON file name", node({ file: undefined, filename: 'json:{"driver":"file","filename":"/etc/shadow"}' })],
    [
      "nesting without end",
      node({ file: { driver: "raw", file: { driver: "raw", file: { driver: "raw", file: { driver: "file" } } } } }),
    ],
    [
      "a FUSE export",
      step("block-export-add", { type: "fuse", id: "sp-e", "node-name": "sp-n", mountpoint: "/etc/passwd" }),
    ],
    ["a vhost-user export", step("block-export-add", { type: "vhost-user-blk", id: "sp-e", "node-name": "sp-n" })],
    ["a writable export", step("block-export-add", { type: "nbd", id: "sp-e", "node-name": "sp-n", writable: true })],
    ["a transaction of something else", actions("block-dirty-bitmap-add", "blockdev-snapshot")],
    ["another's job", step("block-job-cancel", { device: "drive-virtio0" })],
    ["another's export", step("block-export-del", { id: "backup" })],
    ["another's node", step("blockdev-del", { "node-name": "d-0" })],
    ["another's bitmap", step("block-dirty-bitmap-remove", { node: "d-0", name: "veeam" })],
    ["a merge of another's bitmap", step("transaction", { actions: [merge(["sp-b", "veeam"])] })],
    ["a merge with nothing said", step("transaction", { actions: [{ type: "block-dirty-bitmap-merge" }] })],
    ["a transaction of nothing", step("transaction")],
    ["a transaction of nonsense", step("transaction", { actions: [null, 7] })],
  ];
  for (const [what, bad] of hostile)
    test(`refuses ${what}`, () => assert.throws(() => checkStep(bad, FILES, "step"), { code: "OperationNotAllowed" }));
});
