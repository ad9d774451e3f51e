import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { type TestContext, test } from "node:test";
import { type Clock, systemClock } from "../../src/base/index.ts";
import { API_COMMANDS, runCli } from "../../src/cli/index.ts";
import { type Client, COMPUTE, SUBSCRIPTION, startApi } from "./apiHarness.ts";
import { type FakeDomain, fakeDomain } from "./fakeDomain.ts";

interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}
type Run = (...args: readonly string[]) => Promise<Result>;

interface Terminal {
  readonly env?: Record<string, string>;
  readonly tty?: boolean;
  readonly input?: string;
  readonly clock?: Clock;
}

/** No test waits for real seconds. */
const IMPATIENT: Clock = { ...systemClock, sleep: async () => {} };

async function stillpoint(
  args: readonly string[],
  { env = {}, tty = false, input, clock = IMPATIENT }: Terminal = {},
): Promise<Result> {
  const stream = () => Object.assign(new PassThrough(), { isTTY: tty });
  const [stdin, stdout, stderr] = [stream(), stream(), stream()];
  if (input !== undefined) stdin.end(input);
  const code = await runCli(args, API_COMMANDS, { env, stdin, stdout, stderr, clock });
  const text = (from: PassThrough) => String(from.read() ?? "");
  return { code, out: text(stdout), err: text(stderr) };
}

async function scene(t: TestContext): Promise<{ domain: FakeDomain; api: Client; run: Run; flags: string[] }> {
  const domain = fakeDomain({ finishAfterPolls: 1 });
  const api = await startApi(t, domain);
  const client = { url: api.url, tokenFile: join(api.dataDir, "token"), caFile: join(api.dataDir, "tls/ca.pem") };
  await writeFile(join(api.dataDir, "client.json"), JSON.stringify(client));
  const flags = ["--data-dir", api.dataDir];
  const run: Run = (...args) => stillpoint([...args, ...flags]);
  return { domain, api, run, flags };
}

/** Runs and requires success. */
async function done(run: Run, line: string): Promise<Result> {
  const result = await run(...line.split(" "));
  assert.equal(result.code, 0, `${line}: ${result.err}`);
  return result;
}

test("from an empty service to a restored VM, as an operator types it", async (t) => {
  const { domain, run } = await scene(t);
  await done(run, "group create -n rg1 -l local --tags team=db env=test");
  await done(run, "disk create -g rg1 -n os --source pool://host1/main/os.qcow2 --os-type linux");
  await done(run, "disk create -g rg1 -n data --size-gb 2 --sku Premium_LRS");
  const vm = await done(
    run,
    "vm create -g rg1 -n vm1 --attach-os-disk os --attach-data-disks data --size Standard_B2s",
  );
  assert.equal(JSON.parse(vm.out).properties.storageProfile.dataDisks[0].managedDisk.id, `${COMPUTE}/disks/data`);
  await done(run, "restore-point collection create -g rg1 --collection-name rpc1 --source-id vm1");
  const point = await done(
    run,
    "restore-point create -g rg1 --collection-name rpc1 -n rp1 --exclude-disks data --consistency-mode CrashConsistent",
  );
  assert.equal(JSON.parse(point.out).properties.provisioningState, "Succeeded");
  const create = domain.calls.find((call) => call.name === "createPoint")?.argument as Record<string, unknown>;
  assert.deepEqual(create["excludeDisks"], [`${COMPUTE}/disks/data`]);
  assert.equal(create["consistencyMode"], "CrashConsistent");

  await done(run, "restore-point wait -g rg1 --collection-name rpc1 -n rp1");
  const list = await done(run, "restore-point list -g rg1 --collection-name rpc1 -o table");
  assert.match(
    list.out,
    /^Name +TimeCreated +ConsistencyMode +ProvisioningState\n-+ .*\nrp1 +2026-11-02T03:04:05\.678\+00:00 +CrashConsistent +Succeeded\n$/,
  );
  const record = JSON.parse((await done(run, "restore-point record -g rg1 --collection-name rpc1 -n rp1")).out);
  assert.equal(record.properties.record.reachedMode, "CrashConsistent");
  const restored = await done(
    run,
    "restore vm -g rg1 --collection-name rpc1 --restore-point rp1 -n vm2 --disk-names os=os2 --start --keep-identity",
  );
  assert.ok(Array.isArray(JSON.parse(restored.out).disks));
  await done(
    run,
    "restore disk -g rg1 --collection-name rpc1 --restore-point rp1 --disk OS -n os3 --target-resource-group rg1",
  );
  const [whole, single] = domain.calls
    .filter((call) => call.name === "restore")
    .map((call) => call.argument as Record<string, unknown>);
  assert.deepEqual(whole?.["diskNames"], { [`${COMPUTE}/disks/os`.toLowerCase()]: "os2" });
  assert.equal(whole?.["start"], true);
  assert.equal(whole?.["keepIdentity"], true);
  assert.equal(single?.["vmName"], null);
  assert.equal(Array.isArray(single?.["onlyDisks"]) && single["onlyDisks"].length, 1);
});

test("every other command reaches its call", async (t) => {
  const { domain, run, api } = await scene(t);
  await done(run, "group create -g rg1 -l local");
  await done(run, "disk create -g rg1 -n d --size-gb 1");
  await done(run, "vm create -g rg1 -n vm1 --attach-os-disk d");
  await done(
    run,
    `restore-point collection create -g rg1 --collection-name rpc1 --source-id ${COMPUTE}/virtualMachines/vm1`,
  );
  const machine = join(api.dataDir, "machine.json");
  await writeFile(machine, JSON.stringify({ machineType: "q35", firmware: "uefi" }));
  for (const line of [
    "group list",
    "group show -n rg1",
    "disk list",
    "disk list -g rg1",
    "disk show -g rg1 -n d",
    "disk update -g rg1 -n d --size-gb 2",
    "vm list -d",
    "vm list -g rg1",
    "vm show -g rg1 -n vm1 -d",
    "vm stop -g rg1 -n vm1 --skip-shutdown",
    "vm start -g rg1 -n vm1",
    "vm deallocate -g rg1 -n vm1",
    `vm machine set -g rg1 -n vm1 --file ${machine}`,
    "vm machine show -g rg1 -n vm1",
    "vm import -g rg1 -n foreign --qmp /run/vm/qmp.sock --qga /run/vm/qga.sock",
    "vm release -g rg1 -n foreign",
    "restore-point collection list",
    "restore-point collection list -g rg1",
    "restore-point collection show -g rg1 --collection-name rpc1 --restore-points",
    "restore-point collection update -g rg1 --collection-name rpc1 --tags a=b",
    "restore-point create -g rg1 --collection-name rpc1 -n rp1 --no-wait",
    "restore-point show -g rg1 --collection-name rpc1 -n rp1 --instance-view",
    "restore-point abandon -g rg1 --collection-name rpc1 -n rp1",
    "restore-point wait -g rg1 --collection-name rpc1 -n rp1 --deleted",
    "restore-point delete -g rg1 --collection-name rpc1 -n rp1 -y",
    "restore-point collection delete -g rg1 --collection-name rpc1 -y",
    "vm delete -g rg1 -n vm1 --yes",
    "disk delete -g rg1 -n d -y",
    "group delete -n rg1 -y",
  ])
    for (const format of line.includes("show") || line.includes("list") ? ["json", "table"] : ["json"])
      await done(run, `${line} -o ${format}`);
  const names = domain.calls.map((call) => call.name);
  for (const name of [
    "updateDisk",
    "powerOffVm",
    "startVm",
    "deallocateVm",
    "putMachine",
    "importVm",
    "vm-release",
    "updateCollectionTags",
    "group-delete",
  ])
    assert.ok(names.includes(name), name);
  assert.equal(names.filter((name) => name === "point-delete").length, 2);
});

test("exit codes: 1 refused, 2 usage, 3 not found, each with its reason on stderr", async (t) => {
  const { run } = await scene(t);
  const missing = await run("disk", "show", "-g", "rg1", "-n", "nothing");
  assert.equal(missing.code, 3);
  assert.match(missing.err, /^ERROR: \(ResourceNotFound\)/);
  assert.equal(missing.out, "");
  await done(run, "group create -n rg1 -l local");
  const refused = await run("disk", "create", "-g", "rg1", "-n", "a.b", "--size-gb", "1");
  assert.equal(refused.code, 1);
  assert.match(refused.err, /\(InvalidResourceName\).*'a\.b'.*\nTarget: diskName/s);
  const slash = await run("disk", "create", "-g", "rg1", "-n", "a/b", "--size-gb", "1");
  assert.match(slash.err, /InvalidResourceName.*'a\/b'/);
  for (const line of [
    "disk",
    "disk explode",
    "disk show -g rg1",
    "disk create -g rg1 -n d --size-gb many",
    "restore-point create -g a --collection-name b -n c --consistency-mode Maybe",
    "disk create -g rg1 -n d --source http://x/y",
  ]) {
    const usage = await run(...line.split(" "));
    assert.equal(usage.code, 2, line);
    assert.notEqual(usage.err, "");
  }
});

test("a failed point fails the command with code and message", async (t) => {
  const { domain, run } = await scene(t);
  await done(run, "group create -n rg1 -l local");
  await done(run, "disk create -g rg1 -n d --size-gb 1");
  await done(run, "vm create -g rg1 -n vm1 --attach-os-disk d");
  await done(run, "restore-point collection create -g rg1 --collection-name rpc1 --source-id vm1");
  await done(run, "restore-point create -g rg1 --collection-name rpc1 -n rp1 --no-wait");
  const operation = [...domain.operations.values()].findLast((one) => one.kind === "point-create");
  assert.ok(operation);
  domain.finish(operation.id, { code: "VMAgentStatusCommunicationError", message: "VM has not reported status." });
  const again = await run("restore-point", "create", "-g", "rg1", "--collection-name", "rpc1", "-n", "rp1");
  assert.equal(again.code, 1);
  assert.equal(again.err, "ERROR: (VMAgentStatusCommunicationError) VM has not reported status.\n");
  const wait = await run("restore-point", "wait", "-g", "rg1", "--collection-name", "rpc1", "-n", "rp1");
  assert.equal(wait.err, again.err);
});

test("a restart of the service does not end a command that waits for an operation", async (t) => {
  const domain = fakeDomain();
  const api = await startApi(t, domain);
  const client = { url: api.url, tokenFile: join(api.dataDir, "token"), caFile: join(api.dataDir, "tls/ca.pem") };
  await writeFile(join(api.dataDir, "client.json"), JSON.stringify(client));
  const clock = { ...systemClock, sleep: () => systemClock.sleep(10) };
  const flags = ["--data-dir", api.dataDir];
  assert.equal((await stillpoint(["group", "create", "-n", "rg1", "-l", "local", ...flags], { clock })).code, 0);
  const running = stillpoint(["disk", "create", "-g", "rg1", "-n", "d", "--size-gb", "1", ...flags], { clock });
  const operation = async () => {
    for (;;) {
      const [found] = domain.operations.values();
      if (found) return found;
      await systemClock.sleep(5);
    }
  };
  const { id } = await operation();
  await api.restart(200);
  domain.finish(id);
  const result = await running;
  assert.equal(result.code, 0, result.err);
  assert.equal(JSON.parse(result.out).name, "d");
});

test("a missing or unreadable file is named with its remedy, before anything is sent", async (t) => {
  const { api, run } = await scene(t);
  const none = await stillpoint(["group", "list", "--data-dir", join(api.dataDir, "nowhere")]);
  assert.equal(none.code, 2);
  assert.match(none.err, /nowhere\/client\.json: there is no such file\. Start the service/);
  const bare = {
    STILLPOINT_URL: api.url,
    STILLPOINT_TOKEN_FILE: join(api.dataDir, "gone"),
    STILLPOINT_CA_FILE: join(api.dataDir, "tls/ca.pem"),
  };
  assert.match((await stillpoint(["group", "list"], { env: bare })).err, /token file .*gone: there is no such file/);
  const whole = { ...bare, STILLPOINT_TOKEN_FILE: join(api.dataDir, "token"), STILLPOINT_SUBSCRIPTION: SUBSCRIPTION };
  assert.equal((await stillpoint(["group", "list"], { env: whole })).code, 0);
  const plain = { ...whole, STILLPOINT_URL: "http://127.0.0.1:1" };
  assert.equal((await stillpoint(["group", "list"], { env: plain })).code, 2);
  const dead = await stillpoint(["group", "list"], { env: { ...whole, STILLPOINT_URL: "https://127.0.0.1:1" } });
  assert.equal(dead.code, 1);
  assert.match(dead.err, /Cannot reach the service at https:\/\/127\.0\.0\.1:1: ECONNREFUSED/);
  await writeFile(join(api.dataDir, "client.json"), "{");
  assert.match((await run("group", "list")).err, /client\.json is damaged/);
});

test("a certificate of another authority is refused", async (t) => {
  const { run } = await scene(t);
  const other = await scene(t);
  const result = await run("group", "list", "--ca-file", join(other.api.dataDir, "tls/ca.pem"));
  assert.equal(result.code, 1);
  assert.match(result.err, /Cannot reach the service/);
});

test("a terminal sees a bar and is asked before a deletion; a pipe sees neither", async (t) => {
  const { domain, flags, run } = await scene(t);
  await done(run, "group create -n rg1 -l local");
  const line = ["disk", "create", "-g", "rg1", "-n", "d", "--size-gb", "1", ...flags];
  const shown = await stillpoint(line, { tty: true });
  assert.match(shown.err, /\r\[####-+\] +12 % {2}disk d/);
  assert.equal(JSON.parse(shown.out).name, "d");
  assert.equal((await stillpoint(line)).err, "");
  const remove = ["disk", "delete", "-g", "rg1", "-n", "d", ...flags];
  assert.equal((await stillpoint(remove, { tty: true, input: "n\n" })).code, 1);
  assert.equal(domain.calls.filter((call) => call.name === "disk-delete").length, 0);
  assert.equal((await stillpoint(remove, { tty: true, input: "y\n" })).code, 0);
  assert.equal(domain.calls.filter((call) => call.name === "disk-delete").length, 1);
});

test("what others wrote cannot steer the terminal through a table", async (t) => {
  const { domain, run } = await scene(t);
  await domain.putGroup({
    id: `/subscriptions/${SUBSCRIPTION}/resourceGroups/rg1` as never,
    location: "\u001b[2Jx",
    tags: {},
  });
  const table = await done(run, "group list -o table");
  assert.equal(table.out.includes("\u001b"), false);
});
