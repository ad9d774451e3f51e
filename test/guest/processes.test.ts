import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  createGuestVm,
  GUEST_TIMEOUT_MS,
  type GuestVm,
  inWriteOrder,
  LAYOUT,
  lastNumbers,
  readSequence,
  type Stillpoint,
  startStillpoint,
} from "./lib/index.ts";

let site: Stillpoint;
let vm: GuestVm;

before(async () => {
  site = await startStillpoint();
  vm = await createGuestVm(site);
});
after(() => site?.stop());

const mode = (path: string) => (statSync(path).mode & 0o7777).toString(8);
const argv = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1);
const field = (pid: number, name: string) =>
  readFileSync(`/proc/${pid}/status`, "utf8")
    .match(new RegExp(`^${name}:\\s*(.*)$`, "m"))?.[1]
    ?.split(/\s+/) ?? [];
const qemuPid = () => Number(readFileSync(join(site.dataDir, "vms", vm.vmUid, "qemu.pid"), "utf8"));

test("service, guard and QEMU run as the unprivileged user, and cannot become anybody else", () => {
  const expected = String(site.user?.uid ?? process.getuid?.());
  const pids = { guard: site.pid("guard"), service: site.pid("service"), qemu: qemuPid() };
  for (const [name, pid] of Object.entries(pids)) {
    assert.ok(pid, `${name} runs`);
    // real, effective, saved, file system
    assert.deepEqual(new Set(field(pid, "Uid")), new Set([expected]), name);
    if (site.user) assert.deepEqual(field(pid, "CapEff"), ["0000000000000000"], name);
  }
  // `elevateprivileges=deny` sets no_new_privs; 2 is a seccomp filter
  assert.deepEqual(field(pids.qemu, "NoNewPrivs"), ["1"]);
  assert.deepEqual(field(pids.qemu, "Seccomp"), ["2"]);
});

test("QEMU is started without a shell's or a user's strings: sandboxed, no defaults, disks by explicit format", () => {
  const args = argv(qemuPid());
  const after = (flag: string) => args[args.indexOf(flag) + 1] ?? "";
  for (const flag of ["-nodefaults", "-no-user-config", "-no-shutdown"]) assert.ok(args.includes(flag), flag);
  for (const denied of ["obsolete", "elevateprivileges", "spawn", "resourcecontrol"])
    assert.match(after("-sandbox"), new RegExp(`(^|,)${denied}=deny(,|$)`));
  assert.ok(after("-sandbox").startsWith("on,"));
  const nodes = args.filter((_, index) => args[index - 1] === "-blockdev").map((json) => JSON.parse(json));
  assert.deepEqual(
    nodes.map((node) => node.driver).sort(),
    ["file", "file", "file", "qcow2", "qcow2", "raw"],
    "every image is opened by the format that was recorded, none is probed",
  );
  // a hub of its own: the card has a link and nobody is there
  const networks = args.filter((_, index) => args[index - 1] === "-netdev");
  for (const network of networks) assert.match(network, /^hubport,/);
  assert.ok(!args.includes("-nic") && !args.includes("-net"));
});

test("nobody but the service's user can enter its folders, sockets, token or key", () => {
  for (const path of [site.dataDir, join(site.dataDir, "vms", vm.vmUid), join(site.dataDir, "tls")])
    assert.equal(mode(path), "700", path);
  for (const path of [join(site.dataDir, "token"), site.keyFile]) assert.equal(mode(path), "600", path);
  for (const name of readdirSync(join(site.dataDir, "vms", vm.vmUid))) {
    const path = join(site.dataDir, "vms", vm.vmUid, name);
    assert.equal(statSync(path).mode & 0o007, 0, `${name} is closed to others`);
  }
});

test("sockets are 0600 in 0700 folders, wherever they lie", () => {
  let sockets = 0;
  for (const folder of [site.dataDir, site.captureDir])
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isSocket()) continue;
      const path = join(entry.parentPath, entry.name);
      assert.equal(statSync(path).mode & 0o077, 0, `${path} is open to others`);
      assert.equal(mode(entry.parentPath), "700", entry.parentPath);
      sockets++;
    }
  assert.ok(sockets >= 4, `guard, monitor, agent and console: ${sockets} seen`);
});

test("no secret and no name that a user chose stands in an argument or in the environment", () => {
  const secrets = [join(site.dataDir, "token"), site.keyFile].map((path) => readFileSync(path, "latin1").trim());
  const key = readFileSync(site.keyFile);
  secrets.push(key.toString("hex"), key.toString("base64"));
  for (const pid of site.processes()) {
    const told = [...argv(pid), ...readFileSync(`/proc/${pid}/environ`, "utf8").split("\0")];
    for (const text of told) for (const secret of secrets) assert.ok(!text.includes(secret), `a secret of ${pid}`);
  }
  const args = argv(qemuPid());
  assert.equal(args[args.indexOf("-name") + 1], `guest=${vm.vmUid}`);
  const others = args.filter((_, index) => args[index - 1] !== "-blockdev");
  for (const text of others) assert.ok(!/vm1|subscriptions|resourceGroups/i.test(text), text);
});

test("what guard and service weigh, for the record", (t) => {
  for (const name of ["guard", "service"] as const) {
    const rollup = readFileSync(`/proc/${site.pid(name)}/smaps_rollup`, "utf8");
    const pssKiB = Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1]);
    assert.ok(pssKiB > 0);
    t.diagnostic(`${name}: ${Math.round(pssKiB / 1024)} MiB (PSS)`);
  }
});

test("a VM runs on when the guard and the service are killed and come back, and is found again", async () => {
  const pid = qemuPid();
  const before = await vm.written();
  await site.kill("service");
  await site.kill("guard");
  await vm.untilWritten(before + 20);
  for (const name of ["guard", "service"] as const) await site.start(name);
  await site.ready();
  assert.equal(qemuPid(), pid, "the same QEMU");
  const view = await site.client.get<{ statuses: { code: string }[] }>(`${vm.id}/instanceView`);
  assert.ok(
    view.statuses.some(({ code }) => code === "PowerState/running"),
    JSON.stringify(view),
  );
});

test("switched off by its power button, the guest leaves clean disks that tell how far it had written", async () => {
  const confirmed = await vm.written();
  const pid = qemuPid();
  await site.client.send("POST", `${vm.id}/deallocate`, { timeoutMs: GUEST_TIMEOUT_MS });
  assert.ok(!site.processes().includes(pid), "QEMU is gone");
  const [os, b, c] = vm.images;
  const sequences = [
    await readSequence({ path: os, format: "qcow2", offsetBytes: LAYOUT.rootOffsetBytes, sizeBytes: LAYOUT.rootBytes }),
    await readSequence({ path: b, format: "qcow2" }),
    await readSequence({ path: c, format: "raw" }),
  ];
  const last = lastNumbers(sequences);
  assert.ok(inWriteOrder(last), `${last}`);
  assert.ok(Math.min(...last) >= confirmed, `${last} after ${confirmed}`);
});
