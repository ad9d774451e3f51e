import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { GiB } from "../../src/base/index.ts";
import { at, type Client, COMPUTE, GROUP, SUBSCRIPTION, startApi } from "./apiHarness.ts";
import { type FakeDomain, fakeDomain } from "./fakeDomain.ts";

const POINT = `${COMPUTE}/restorePointCollections/rpc1/restorePoints/rp1`;
const VM = `${COMPUTE}/virtualMachines/vm1`;

const vmBody = {
  location: "local",
  properties: {
    hardwareProfile: { vmSize: "Standard_B1s" },
    storageProfile: {
      osDisk: { osType: "linux", createOption: "attach", managedDisk: { id: `${COMPUTE}/disks/os` } },
      // Azure's own template spells it so.
      datadisks: [
        { lun: "0", createOption: "Attach", caching: "readonly", managedDisk: { id: `${COMPUTE}/disks/data` } },
      ],
    },
  },
};

async function scene(t: TestContext): Promise<{ domain: FakeDomain; api: Client }> {
  const domain = fakeDomain();
  const api = await startApi(t, domain);
  assert.equal((await api.call("PUT", at(GROUP), { location: "local", tags: { a: "b" } })).status, 201);
  const vm = await api.call("PUT", at(VM), vmBody);
  assert.equal(vm.status, 201, vm.text);
  const collection = { location: "local", properties: { source: { id: VM } } };
  assert.equal((await api.call("PUT", at(`${COMPUTE}/restorePointCollections/rpc1`), collection)).status, 201);
  return { domain, api };
}

const operationOf = (domain: FakeDomain, kind: string) => {
  const found = [...domain.operations.values()].findLast((operation) => operation.kind === kind);
  assert.ok(found, `an operation of kind ${kind}`);
  return found.id;
};

test("nothing but health is answered without the token", async (t) => {
  const api = await startApi(t, fakeDomain(), ["the repository is read-only"]);
  for (const authorization of [undefined, "", "Bearer ", "Bearer wrong", "Basic Zm9v"])
    for (const path of [at(GROUP), "/", "/nowhere", "/schemas/record.json", "/healthz/x", "/subscriptions/%ZZ"]) {
      const answer = await api.call("GET", path, undefined, { authorization });
      assert.equal(answer.status, 401, `${path} with ${authorization}: ${answer.text}`);
      assert.equal(answer.body.error.code, "AuthenticationFailed");
      assert.equal(answer.headers["www-authenticate"], "Bearer");
    }
  assert.equal((await api.call("PUT", at(GROUP), "x".repeat(2 << 20), { authorization: undefined })).status, 401);
  assert.deepEqual((await api.call("GET", "/healthz", undefined, { authorization: undefined })).body, { status: "ok" });
  const ready = await api.call("GET", "/readyz", undefined, { authorization: undefined });
  assert.equal(ready.status, 503);
  assert.deepEqual(ready.body, { status: "not ready", problems: ["the repository is read-only"] });
});

test("every answer carries the request's ids", async (t) => {
  const api = await startApi(t, fakeDomain());
  const one = await api.call("GET", at(GROUP), undefined, { "x-ms-correlation-request-id": "abc-1" });
  const two = await api.call("GET", at(GROUP));
  assert.equal(one.headers["x-ms-correlation-request-id"], "abc-1");
  assert.match(String(one.headers["x-ms-request-id"]), /^[0-9a-f-]{36}$/);
  assert.notEqual(one.headers["x-ms-request-id"], two.headers["x-ms-request-id"]);
});

test("a restore point from PUT to disk restore point, as az polls it", async (t) => {
  const { domain, api } = await scene(t);
  const created = await api.call("PUT", at(POINT), {});
  assert.equal(created.status, 201, created.text);
  assert.equal("type" in created.body, false);
  assert.equal(created.body.properties.provisioningState, "Creating");
  assert.equal("consistencyMode" in created.body.properties, false);
  assert.equal("diskRestorePoint" in created.body.properties.sourceMetadata.storageProfile.osDisk, false);
  assert.equal(created.headers["retry-after"], "1");
  const poll = String(created.headers["azure-asyncoperation"]);
  assert.match(
    poll,
    new RegExp(
      `^${api.url}/subscriptions/${SUBSCRIPTION}/providers/Microsoft\\.Compute/locations/local/operations/[0-9a-f-]{36}\\?api-version=2024-07-01$`,
    ),
  );
  const running = await api.call("GET", poll);
  assert.equal(running.status, 200);
  assert.equal(running.body.status, "InProgress");
  assert.equal(running.body.percentComplete, 12);
  assert.equal(running.headers["retry-after"], "1");
  assert.equal("endTime" in running.body, false);
  assert.equal((await api.call("GET", String(created.headers["location"]))).status, 202);
  assert.equal((await api.call("GET", at(`${POINT}/diskRestorePoints`))).status, 409);

  domain.finish(operationOf(domain, "point-create"));
  const done = await api.call("GET", poll);
  assert.equal(done.body.status, "Succeeded");
  assert.match(done.body.startTime, /\+00:00$/);
  assert.match(done.body.endTime, /\+00:00$/);
  const monitored = await api.call("GET", String(created.headers["location"]));
  assert.equal(monitored.status, 200);
  assert.equal(monitored.body.name, "rp1");

  const point = await api.call("GET", at(POINT, "$expand=instanceView"));
  const { storageProfile } = point.body.properties.sourceMetadata;
  assert.equal(point.body.properties.consistencyMode, "FileSystemConsistent");
  assert.equal(storageProfile.osDisk.diskSizeGB, 4);
  assert.equal(storageProfile.dataDisks[0].diskRestorePoint.encryption.type, "EncryptionAtRestWithPlatformKey");
  const { statuses, diskRestorePoints } = point.body.properties.instanceView;
  assert.equal(statuses[0].code, "ReplicationState/succeeded");
  const taken = statuses.find((status: { code: string }) => status.code === "Stillpoint/PointInTime/taken");
  assert.equal(taken.time, "2026-11-02T03:04:05.678+00:00");
  assert.equal(diskRestorePoints[0].replicationStatus.completionPercent, 100);
  const older = await api.call("GET", `${POINT}?api-version=2022-08-01`);
  assert.equal("encryption" in older.body.properties.sourceMetadata.storageProfile.osDisk.diskRestorePoint, false);

  const listed = await api.call("GET", at(`${POINT}/diskRestorePoints`));
  assert.equal(listed.body.value.length, 2);
  const id: string = storageProfile.osDisk.diskRestorePoint.id;
  const single = await api.call("GET", at(id.toUpperCase()));
  assert.equal(single.status, 200, single.text);
  assert.equal(single.body.id, id);
  assert.equal(single.body.properties.sourceResourceId, `${COMPUTE}/disks/os`);

  const collection = await api.call("GET", at(`${COMPUTE}/restorePointCollections/rpc1`, "%24expand=restorePoints"));
  assert.equal(collection.body.properties.restorePoints[0].name, "rp1");
  const plain = await api.call("GET", at(`${COMPUTE}/restorePointCollections/rpc1`));
  assert.equal("restorePoints" in plain.body.properties, false);
  const record = await api.call("GET", at(`${POINT}/providers/Stillpoint.Capture/records/default`));
  assert.equal(record.body.properties.record.reachedMode, "FileSystemConsistent");
});

test("the same meaning is the same request, whatever its case, order and spelling", async (t) => {
  const { domain, api } = await scene(t);
  const disks = [`${COMPUTE}/disks/os`, `${COMPUTE}/disks/data`];
  const first = { properties: { excludeDisks: disks.map((id) => ({ id })), consistencyMode: "CrashConsistent" } };
  const second = {
    Properties: {
      CONSISTENCYMODE: "crashconsistent",
      excludedisks: disks.toReversed().map((id) => ({ ID: id.toUpperCase() })),
    },
  };
  assert.equal((await api.call("PUT", at(POINT), first)).status, 201);
  assert.equal((await api.call("PUT", at(POINT), second)).status, 201);
  assert.equal((await api.call("PUT", at(POINT), {})).status, 409);
  const hashes = domain.calls
    .filter((call) => call.name === "createPoint")
    .map((call) => (call.argument as { bodyHash: string }).bodyHash);
  assert.equal(hashes[0], hashes[1]);
  assert.notEqual(hashes[0], hashes[2]);
});

test("a failed operation tells code and message at both addresses", async (t) => {
  const { domain, api } = await scene(t);
  const created = await api.call("PUT", at(POINT), {});
  domain.finish(operationOf(domain, "point-create"), {
    code: "VMAgentStatusCommunicationError",
    message: "VM has not reported status for VM agent or extensions.",
  });
  const status = await api.call("GET", String(created.headers["azure-asyncoperation"]));
  assert.equal(status.body.status, "Failed");
  assert.equal(status.body.error.code, "VMAgentStatusCommunicationError");
  const monitor = await api.call("GET", String(created.headers["location"]));
  assert.equal(monitor.status, 409);
  assert.equal(monitor.body.error.code, "VMAgentStatusCommunicationError");
  assert.equal((await api.call("GET", at(POINT))).body.properties.provisioningState, "Failed");
});

test("a disk: 202, DiskOperations with the resource as output, growth, deletion", async (t) => {
  const { domain, api } = await scene(t);
  const path = at(`${COMPUTE}/disks/d1`);
  // What az 2.45 sends, with the size as templates send it.
  const body = {
    location: "Local",
    tags: {},
    sku: { name: "Premium_LRS" },
    properties: { hyperVGeneration: "V1", creationData: { createOption: "empty" }, diskSizeGB: "4" },
  };
  const created = await api.call("PUT", path, body);
  assert.equal(created.status, 202, created.text);
  assert.equal(created.body.sku.tier, "Premium");
  assert.equal(created.body.properties.diskSizeBytes, 4 * GiB);
  assert.match(String(created.headers["azure-asyncoperation"]), /\/locations\/local\/DiskOperations\//);
  domain.finish(operationOf(domain, "disk-create"));
  const status = await api.call("GET", String(created.headers["azure-asyncoperation"]));
  assert.equal(status.body.properties.output.name, "d1");
  // What was read may be sent back.
  const read = await api.call("GET", path);
  assert.equal((await api.call("PUT", path, read.body)).status, 202);
  assert.equal((await api.call("PATCH", path, { tags: { x: "y" } })).status, 200);
  assert.equal((await api.call("PATCH", path, { properties: { diskSizeGB: 8 } })).status, 202);
  assert.equal((await api.call("PATCH", path, { sku: { name: "Standard_LRS" } })).status, 409);
  const removed = await api.call("DELETE", path);
  assert.equal(removed.status, 202);
  assert.equal(removed.text, "");
  assert.equal((await api.call("GET", String(removed.headers["location"]))).status, 202);
  domain.finish(operationOf(domain, "disk-delete"));
  const after = await api.call("GET", String(removed.headers["location"]));
  assert.equal(after.status, 200);
  assert.equal(after.text, "");
  assert.equal((await api.call("DELETE", path)).status, 204);
});

test("a VM: attach, power, instance view, what was read may be sent back", async (t) => {
  const { domain, api } = await scene(t);
  const put = domain.calls.find((call) => call.name === "putVm")?.argument as {
    dataDisks: unknown[];
    osDisk: { osType: string };
  };
  assert.deepEqual(put.dataDisks, [{ diskId: `${COMPUTE}/disks/data`, name: null, lun: 0, caching: "ReadOnly" }]);
  assert.equal(put.osDisk.osType, "Linux");
  const read = await api.call("GET", at(VM));
  assert.equal("instanceView" in read.body.properties, false);
  assert.equal((await api.call("PUT", at(VM), read.body)).status, 200);
  const view = await api.call("GET", at(VM, "$expand=instanceView"));
  const codes = view.body.properties.instanceView.statuses.map((status: { code: string }) => status.code);
  assert.deepEqual(codes, ["ProvisioningState/creating", "PowerState/running"]);
  assert.equal((await api.call("GET", at(`${VM}/instanceView`))).body.vmAgent.statuses[0].displayStatus, "Ready");
  for (const verb of ["start", "powerOff", "deallocate"]) {
    const answer = await api.call("POST", at(`${VM}/${verb}`, "skipShutdown=true"));
    assert.equal(answer.status, 202, answer.text);
    assert.match(String(answer.headers["location"]), /monitor=true/);
  }
  assert.deepEqual(domain.calls.find((call) => call.name === "powerOffVm")?.argument, { id: VM, skipShutdown: true });
});

test("secrets of an osProfile are neither kept nor shown", async (t) => {
  const { api } = await scene(t);
  const osProfile = {
    computerName: "c",
    adminPassword: "hunter2",
    customData: "aHVudGVyMg==",
    secrets: [{ a: "hunter2" }],
  };
  const body = structuredClone(vmBody) as { properties: Record<string, unknown> };
  body.properties["osProfile"] = osProfile;
  const answer = await api.call("PUT", at(`${COMPUTE}/virtualMachines/vm2`), body);
  assert.equal(answer.status, 201);
  assert.deepEqual(answer.body.properties.osProfile, { computerName: "c" });
  assert.equal(JSON.stringify(api.logged).includes("hunter2"), false);
});

test("lists come in pages with links that keep the query", async (t) => {
  const { api } = await scene(t);
  for (let i = 0; i < 205; i++) {
    const name = `c${String(i).padStart(3, "0")}`;
    const body = { location: "local", properties: { source: { id: VM } } };
    await api.call("PUT", at(`${COMPUTE}/restorePointCollections/${name}`), body);
  }
  const names: string[] = [];
  let next: string | undefined = at(
    `/subscriptions/${SUBSCRIPTION}/providers/Microsoft.Compute/restorePointCollections`,
    "x=1",
  );
  let pages = 0;
  while (next !== undefined) {
    const answer = await api.call("GET", next);
    assert.equal(answer.status, 200, answer.text);
    names.push(...answer.body.value.map((one: { name: string }) => one.name));
    next = answer.body.nextLink;
    if (next) assert.match(next, new RegExp(`^${api.url}/.*x=1.*api-version=2024-07-01`));
    pages++;
  }
  assert.equal(pages, 3);
  assert.equal(new Set(names).size, 206);
});

test("paths match whatever their case, with doubled slashes after a provider; ids come back in Azure's spelling", async (t) => {
  const { api } = await scene(t);
  const odd = VM.replace("resourceGroups", "resourcegroups")
    .replace("virtualMachines", "VIRTUALMACHINES")
    .replace("Microsoft.Compute/", "microsoft.compute//");
  const answer = await api.call("GET", at(odd));
  assert.equal(answer.status, 200, answer.text);
  assert.equal(answer.body.id, VM);
  assert.equal((await api.call("HEAD", at(GROUP))).status, 204);
  assert.equal((await api.call("HEAD", at(`${GROUP}x`))).status, 404);
});

test("our own resources: machine, import, release, restore, schemas", async (t) => {
  const { domain, api } = await scene(t);
  const machine = {
    properties: {
      machineType: "q35",
      firmware: "uefi",
      disks: { [`${COMPUTE}/disks/OS`]: { bus: "virtio-scsi", serial: "root", iothread: true, bootIndex: 1 } },
      nics: [{ mac: "52:54:00:AB:cd:ef" }],
    },
  };
  const path = `${VM}/providers/Stillpoint.Hypervisor/machines/default`;
  const put = await api.call("PUT", at(path), machine);
  assert.equal(put.status, 200, put.text);
  assert.deepEqual(put.body.properties.disks, {
    [`${COMPUTE}/disks/os`.toLowerCase()]: { bus: "virtio-scsi", serial: "root", iothread: true, bootIndex: 1 },
  });
  assert.deepEqual(put.body.properties.nics, [{ mac: "52:54:00:ab:cd:ef", model: "virtio-net-pci" }]);
  assert.deepEqual((await api.call("GET", at(path))).body, put.body);
  assert.equal((await api.call("PUT", at(path), put.body)).status, 200);

  const imported = `${COMPUTE}/virtualMachines/adopted/providers/Stillpoint.Hypervisor`;
  const adoption = { location: "local", properties: { qmpSocket: "/run/vm/qmp.sock" } };
  assert.equal((await api.call("POST", at(`${imported}/import`), adoption)).status, 202);
  assert.equal((await api.call("POST", at(`${imported}/release`))).status, 202);

  await api.call("PUT", at(POINT), {});
  domain.finish(operationOf(domain, "point-create"));
  const restore = {
    properties: {
      targetResourceGroup: "rg2",
      vmName: "back",
      diskNames: { [`${COMPUTE}/disks/OS`]: "os2" },
      start: "true",
    },
  };
  const restored = await api.call("POST", at(`${POINT}/providers/Stillpoint.Restore/restores`), restore);
  assert.equal(restored.status, 202, restored.text);
  const command = domain.calls.find((call) => call.name === "restore")?.argument;
  assert.deepEqual(command, {
    pointId: POINT,
    targetGroup: `/subscriptions/${SUBSCRIPTION}/resourceGroups/rg2`,
    vmName: "back",
    diskNames: { [`${COMPUTE}/disks/os`.toLowerCase()]: "os2" },
    onlyDisks: [],
    start: true,
    keepIdentity: false,
  });
  const output = { disks: [`${COMPUTE}/disks/os2`], vm: `${COMPUTE}/virtualMachines/back`, notRestored: ["TPM state"] };
  domain.finish(operationOf(domain, "restore"), undefined, output);
  const result = { disks: [{ id: output.disks[0] }], virtualMachine: { id: output.vm }, notRestored: ["TPM state"] };
  assert.deepEqual((await api.call("GET", String(restored.headers["location"]))).body, result);
  assert.deepEqual(
    (await api.call("GET", String(restored.headers["azure-asyncoperation"]))).body.properties.output,
    result,
  );

  for (const name of ["record.json", "machine.json", "restore.json"]) {
    const schema = await api.call("GET", `/schemas/${name}`);
    assert.equal(schema.status, 200, schema.text);
    assert.equal(schema.body.type, "object");
  }
});

test("a defect of ours shows the request id, never its text", async (t) => {
  const domain = fakeDomain();
  const api = await startApi(t, { ...domain, getGroup: async () => Promise.reject(new TypeError("secret inside")) });
  const answer = await api.call("GET", at(GROUP));
  assert.equal(answer.status, 500);
  assert.equal(answer.body.error.code, "InternalError");
  assert.equal(answer.text.includes("secret inside"), false);
  assert.ok(answer.text.includes(String(answer.headers["x-ms-request-id"])));
  assert.ok(api.logged.some((line) => line.level === "error"));
});
