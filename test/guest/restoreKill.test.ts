/** kill -9 of the service in the middle of a restore: no half disk under a final name, and a clear end after the restart. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { MiB, systemClock, systemRandom } from "../../src/base/index.ts";
import { type Stillpoint, startStillpoint } from "./lib/stillpoint.ts";
import { digest, readImage } from "./lib/truth.ts";
import { computeId } from "./lib/vm.ts";

const SLOW_MS = 240_000;
const GROUP = "kill";
const DISKS = ["k-os", "k-data"] as const;
const vmId = (name: string) => computeId(GROUP, "virtualMachines", name);
const point = `${computeId(GROUP, "restorePointCollections", "points")}/restorePoints/p1`;

let site: Stillpoint;
const truth: string[] = [];

before(async () => {
  site = await startStillpoint();
  const put = (path: string, body: unknown) => site.client.send("PUT", path, { body, timeoutMs: SLOW_MS });
  await put(computeId(GROUP, "", "").split("/providers")[0] ?? "", { location: "local" });
  for (const name of DISKS) {
    const file = join(site.poolDir, `${name}.raw`);
    await randomFile(file, name === "k-os" ? 160 * MiB : 96 * MiB);
    site.own(file);
    truth.push(await digest(file));
    await put(computeId(GROUP, "disks", name), {
      location: "local",
      properties: { creationData: { createOption: "Import", sourceUri: `pool://host1/main/${name}.raw` } },
    });
  }
  const attach = (name: string) => ({ createOption: "Attach", managedDisk: { id: computeId(GROUP, "disks", name) } });
  await put(vmId("source"), {
    location: "local",
    properties: {
      hardwareProfile: { vmSize: "Standard_B1ls" },
      storageProfile: {
        osDisk: { ...attach("k-os"), osType: "Linux" },
        dataDisks: [{ ...attach("k-data"), lun: 0 }],
      },
    },
  });
  // nothing on it can boot, so nothing in it writes: the files stay the truth
  for (const how of ["powerOff?skipShutdown=true", "deallocate"])
    await site.client.send("POST", `${vmId("source")}/${how}`, { timeoutMs: SLOW_MS });
  const [collection = ""] = point.split("/restorePoints/");
  await put(collection, { location: "local", properties: { source: { id: vmId("source") } } });
  await put(point, { properties: {} });
});
after(() => site?.stop());

/** Images of earlier restores. */
const known = new Set<string>(DISKS.map((name) => `${name}.raw`));

/** Images that the present restore has given their names. */
async function finals(): Promise<readonly string[]> {
  return (await readdir(site.poolDir)).filter((file) => !file.startsWith(".") && !known.has(file));
}

/** Bytes that the service has written to the image under way. */
async function partialBytes(): Promise<number> {
  const name = (await readdir(site.poolDir)).find((file) => file.startsWith(".stillpoint-partial-"));
  if (!name) return 0;
  const { blocks } = await stat(join(site.poolDir, name)).catch(() => ({ blocks: 0 }));
  return blocks * 512;
}

/** Starts a restore; true when its n-th disk is being written, false when that went by unseen. */
async function caughtAt(wholeDisks: number, isOver: () => boolean): Promise<boolean> {
  while (!isOver()) {
    const done = (await finals()).length;
    if (done > wholeDisks) return false;
    if (done === wholeDisks && (await partialBytes()) > 8 * MiB) return true;
    await systemClock.sleep(2);
  }
  return false;
}

const ATTEMPTS = 5;

for (const [which, wholeDisks] of [
  ["first", 0],
  ["second", 1],
] as const)
  test(`killed while it writes the ${which} disk`, async () => {
    let name = "";
    let outcome: Promise<string> = Promise.resolve("");
    for (let attempt = 1; ; attempt++) {
      name = `${which}-${attempt}`;
      let over = false;
      outcome = site.client
        .send("POST", `${point}/providers/Stillpoint.Restore/restores`, {
          body: { properties: { targetResourceGroup: GROUP, vmName: name } },
          timeoutMs: SLOW_MS,
        })
        .then(
          () => "ended",
          () => "cut off",
        )
        .finally(() => {
          over = true;
        });
      if (await caughtAt(wholeDisks, () => over)) break;
      assert.equal(await outcome, "ended");
      assert.ok(attempt < ATTEMPTS, "the restore was caught in the act");
      for (const file of await finals()) known.add(file);
    }
    await site.kill("service");
    assert.equal(await outcome, "cut off");
    const whole = await finals();
    assert.ok(whole.length <= wholeDisks + 1);
    for (const file of whole)
      assert.ok(truth.includes(await imageDigest(join(site.poolDir, file))), `${file} is whole`);

    await site.start("service");
    await site.ready();
    const state = await settled(vmId(name));
    assert.equal(
      (await readdir(site.poolDir)).filter((file) => file.startsWith(".")).length,
      0,
      "nothing half-written",
    );
    const files = await finals();
    for (const file of files) known.add(file);
    if (state === "gone") return assert.deepEqual(files, [], "a restore that failed leaves no disk");
    assert.equal(state, "Succeeded");
    const digests: string[] = [];
    for (const file of files) digests.push(await imageDigest(join(site.poolDir, file)));
    assert.deepEqual(digests.sort(), truth.toSorted());
  });

test("after both, the point can be deleted: no pin was left behind", async () => {
  await site.client.send("DELETE", point, { timeoutMs: SLOW_MS });
});

/** Waits until the restored VM has left `Creating`. */
async function settled(id: string): Promise<string> {
  const endsMs = systemClock.monotonicMs() + SLOW_MS;
  for (;;) {
    const state = await site.client.get<{ properties: { provisioningState: string } }>(id).then(
      (vm) => vm.properties.provisioningState,
      (error: Error) => {
        if (/ResourceNotFound/.test(error.message)) return "gone";
        throw error;
      },
    );
    if (state !== "Creating") return state;
    assert.ok(systemClock.monotonicMs() < endsMs, "the restore came to an end");
    await systemClock.sleep(200);
  }
}

async function imageDigest(path: string): Promise<string> {
  const raw = join(site.folder, "image.raw");
  await readImage(path, path.endsWith(".raw") ? "raw" : "qcow2", raw);
  return digest(raw);
}

/** Bytes that neither compress nor repeat: the slowest to restore. */
async function randomFile(path: string, sizeBytes: number): Promise<void> {
  assert.ok(!existsSync(path));
  const file = await open(path, "w");
  try {
    for (let at = 0; at < sizeBytes; at += MiB) await file.write(systemRandom.bytes(MiB), 0, MiB, at);
  } finally {
    await file.close();
  }
}
