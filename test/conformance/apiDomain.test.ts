/** The wire over the real domain: an operator's day by command line, and the rules that only the domain knows. */
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { type TestContext, test } from "node:test";
import { systemClock } from "../../src/base/index.ts";
import { openCatalog } from "../../src/catalog/index.ts";
import { API_COMMANDS, runCli } from "../../src/cli/index.ts";
import { startService } from "../faults/domainSite.ts";
import { World } from "../faults/domainWorld.ts";
import { type Answer, at, type Client, COMPUTE, GROUP, SUBSCRIPTION, startApi } from "./apiHarness.ts";

interface Site {
  readonly api: Client;
  /** Runs a command line and gives what it printed; anything but success fails the test. */
  readonly run: (line: string) => Promise<string>;
}

async function site(t: TestContext): Promise<Site> {
  const catalog = await openCatalog(":memory:");
  const domain = startService(new World(), catalog);
  await domain.recover();
  const api = await startApi(t, domain);
  t.after(async () => {
    await domain.close();
    await catalog.close();
  });
  const client = { url: api.url, tokenFile: join(api.dataDir, "token"), caFile: join(api.dataDir, "tls/ca.pem") };
  await writeFile(join(api.dataDir, "client.json"), JSON.stringify(client));
  const clock = { ...systemClock, sleep: () => systemClock.sleep(5) };
  const run = async (line: string) => {
    const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
    const args = [...line.split(" "), "--data-dir", api.dataDir];
    const code = await runCli(args, API_COMMANDS, { env: {}, stdin, stdout, stderr, clock });
    assert.equal(code, 0, `${line}: ${stderr.read()}`);
    return String(stdout.read() ?? "");
  };
  return { api, run };
}

async function furnished(t: TestContext): Promise<Site> {
  const { api, run } = await site(t);
  await run("group create -n rg1 -l local");
  for (const disk of ["os", "data", "spare"]) await run(`disk create -g rg1 -n ${disk} --size-gb 1`);
  await run("vm create -g rg1 -n vm1 --attach-os-disk os --attach-data-disks data");
  await run("restore-point collection create -g rg1 --collection-name rpc1 --source-id vm1");
  return { api, run };
}

test("an operator's day: point, failed upgrade, restore, cleaning up", async (t) => {
  const { run } = await furnished(t);
  const from = "-g rg1 --collection-name rpc1";
  await run(`restore-point create ${from} -n before --consistency-mode CrashConsistent`);
  const point = JSON.parse(await run(`restore-point show ${from} -n before --instance-view`));
  assert.equal(point.properties.provisioningState, "Succeeded");
  assert.equal(point.properties.consistencyMode, "CrashConsistent");
  assert.equal(point.properties.instanceView.diskRestorePoints.length, 2);
  const { id } = point.properties.sourceMetadata.storageProfile.osDisk.diskRestorePoint;
  await run(`disk create -g rg1 -n os-again --source ${id}`);
  const restored = JSON.parse(
    await run(`restore vm ${from} --restore-point before -n vm2 --disk-names os=vm2-os --start`),
  );
  assert.equal(restored.virtualMachine.id, `${COMPUTE}/virtualMachines/vm2`);
  assert.ok(restored.disks.some((disk: { id: string }) => disk.id === `${COMPUTE}/disks/vm2-os`));
  assert.match(await run("vm list -g rg1 -d -o table"), /vm2 .*VM running/);
  const single = JSON.parse(await run(`restore disk ${from} --restore-point before --disk data -n data-again`));
  assert.deepEqual(single.disks, [{ id: `${COMPUTE}/disks/data-again` }]);
  const record = JSON.parse(await run(`restore-point record ${from} -n before`));
  assert.equal(record.properties.record.reachedMode, "CrashConsistent");

  await run("vm deallocate -g rg1 -n vm1");
  await run("vm delete -g rg1 -n vm1 -y");
  assert.equal(JSON.parse(await run(`restore-point list ${from}`)).length, 1);
  await run(`restore-point delete ${from} -n before`);
  await run(`restore-point wait ${from} -n before --deleted`);
  assert.deepEqual(JSON.parse(await run(`restore-point list ${from}`)), []);
  await run(`restore-point collection delete ${from} -y`);
  assert.deepEqual(JSON.parse(await run("restore-point collection list")), []);
});

/** Everything the API shows of the site. */
async function everything(api: Client): Promise<unknown> {
  const lists = ["disks", "virtualMachines", "restorePointCollections"].map((type) => at(`${COMPUTE}/${type}`));
  const one = at(`${COMPUTE}/restorePointCollections/rpc1`, "$expand=restorePoints");
  const answers = await Promise.all([...lists, one].map((path) => api.call("GET", path)));
  return answers.map((answer: Answer) => answer.body);
}

test("a refused command names the request's field and changes nothing", async (t) => {
  const { api, run } = await furnished(t);
  const rpc = `${COMPUTE}/restorePointCollections/rpc1`;
  await run("restore-point create -g rg1 --collection-name rpc1 -n rp1 --consistency-mode CrashConsistent");
  const disk = (name: string) => ({ id: `${COMPUTE}/disks/${name}` });
  const vmBody = (osDisk: string, vmSize = "Standard_B1s") => ({
    location: "local",
    properties: {
      hardwareProfile: { vmSize },
      storageProfile: { osDisk: { osType: "Linux", createOption: "Attach", managedDisk: disk(osDisk) } },
    },
  });
  const restore = (more: object) => ({ properties: { targetResourceGroup: "rg1", ...more } });
  const restores = `${rpc}/restorePoints/rp1/providers/Stillpoint.Restore/restores`;
  const source = (name: string) => ({
    location: "local",
    properties: { source: { id: `${COMPUTE}/virtualMachines/${name}` } },
  });
  const empty = (more: object) => ({
    location: "local",
    properties: { creationData: { createOption: "Empty" }, ...more },
  });
  const excluded = (...names: string[]) => ({ properties: { excludeDisks: names.map(disk) } });
  const cases: readonly (readonly [
    what: string,
    method: string,
    path: string,
    body: unknown,
    target: string | undefined,
    says?: RegExp,
  ])[] = [
    [
      "an unknown disk excluded",
      "PUT",
      `${rpc}/restorePoints/rp2`,
      excluded("data", "spare"),
      "properties.excludeDisks[1]",
      /Its disks are/,
    ],
    ["all disks excluded", "PUT", `${rpc}/restorePoints/rp2`, excluded("os", "data"), "properties.excludeDisks"],
    ["another body for a point that is there", "PUT", `${rpc}/restorePoints/rp1`, {}, undefined, /cannot be changed/],
    ["a point in a collection that is not there", "PUT", `${rpc}2/restorePoints/rp1`, {}, undefined],
    ["a collection of a VM that is not there", "PUT", `${rpc}2`, source("vm9"), "properties.source.id"],
    ["a second source", "PUT", rpc, source("vm9"), "properties.source.id"],
    [
      "another location",
      "PUT",
      `${COMPUTE}/disks/d`,
      { ...empty({ diskSizeGB: 1 }), location: "mars" },
      "location",
      /'local'/,
    ],
    ["an empty disk without a size", "PUT", `${COMPUTE}/disks/d`, empty({}), "properties.diskSizeGB"],
    ["an unknown sku", "PUT", `${COMPUTE}/disks/d`, { ...empty({ diskSizeGB: 1 }), sku: { name: "Gold" } }, "sku.name"],
    [
      "a group that is not there",
      "PUT",
      `${COMPUTE.replace("rg1", "rg9")}/disks/d`,
      empty({ diskSizeGB: 1 }),
      undefined,
      /Create it first/,
    ],
    [
      "an unknown size",
      "PUT",
      `${COMPUTE}/virtualMachines/vm2`,
      vmBody("spare", "Huge"),
      "properties.hardwareProfile.vmSize",
    ],
    [
      "an attached disk",
      "PUT",
      `${COMPUTE}/virtualMachines/vm2`,
      vmBody("os"),
      "properties.storageProfile.osDisk.managedDisk.id",
    ],
    ["a restored VM of a taken name", "POST", restores, restore({ vmName: "vm1" }), undefined, /vmName/],
    [
      "a name for a disk the point has not",
      "POST",
      restores,
      restore({ diskNames: { [disk("spare").id]: "x" } }),
      "properties.diskNames",
    ],
    [
      "a disk of another point",
      "POST",
      restores,
      restore({ diskRestorePoints: [{ id: `${rpc}/restorePoints/rp1/diskRestorePoints/x` }] }),
      "properties.diskRestorePoints[0].id",
    ],
    [
      "two new disks of one name",
      "POST",
      restores,
      restore({
        vmName: "vm3",
        diskRestorePoints: [],
        diskNames: { [disk("os").id]: "same", [disk("data").id]: "same" },
      }),
      "properties.diskNames",
    ],
    ["an attached disk deleted", "DELETE", `${COMPUTE}/disks/os`, undefined, undefined],
    ["something below a disk", "PUT", `${COMPUTE}/disks/nothing/x`, {}, "disks/x"],
  ];
  const before = await everything(api);
  for (const [what, method, path, body, target, says = /./] of cases)
    await t.test(what, async () => {
      const answer = await api.call(method, at(path), body);
      assert.ok(answer.status >= 400 && answer.status < 500, answer.text);
      assert.equal(answer.body.error.target, target, answer.text);
      assert.match(answer.body.error.message, says);
      assert.deepEqual(await everything(api), before);
    });
});

test("a point that is being created can be abandoned, one that has succeeded cannot", async (t) => {
  const { api, run } = await furnished(t);
  await run("restore-point create -g rg1 --collection-name rpc1 -n rp1 --consistency-mode CrashConsistent");
  const path = `${COMPUTE}/restorePointCollections/rpc1/restorePoints/rp1`;
  const answer = await api.call("POST", at(`${path}/providers/Stillpoint.Capture/abandon`));
  assert.equal(answer.status, 409, answer.text);
  assert.equal((await api.call("GET", at(path))).body.properties.provisioningState, "Succeeded");
  assert.equal((await api.call("GET", at(GROUP))).body.id, `/subscriptions/${SUBSCRIPTION}/resourceGroups/rg1`);
});
