import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { test } from "node:test";

const repo = resolve(import.meta.dirname, "..");

/** A unit's directives by section; a directive that stands twice is joined. */
function unit(name: string): Record<string, Record<string, string>> {
  const sections: Record<string, Record<string, string>> = {};
  let section: Record<string, string> = {};
  for (const line of readFileSync(join(repo, "systemd", name), "utf8").split("\n")) {
    const heading = line.match(/^\[(\w+)\]$/)?.[1];
    const [, key, value] = line.match(/^(\w+)=(.*)$/) ?? [];
    if (heading) {
      section = {};
      sections[heading] = section;
    } else if (key !== undefined && value !== undefined)
      section[key] = section[key] ? `${section[key]} ${value}` : value;
  }
  return sections;
}

const guard = unit("stillpoint-guard.service");
const service = unit("stillpoint.service");

test("stopping or losing the guard never takes a VM along", () => {
  assert.equal(guard["Service"]?.["KillMode"], "process");
  assert.equal(guard["Service"]?.["SendSIGKILL"], "no");
  assert.equal(guard["Service"]?.["OOMPolicy"], "continue");
  assert.equal(guard["Service"]?.["Restart"], "always");
  assert.equal(guard["Unit"]?.["StartLimitIntervalSec"], "0");
});

test("the service's stop does not reach the guard, nor the guard's the service", () => {
  for (const name of ["Requires", "BindsTo", "PartOf", "Requisite"]) {
    assert.equal(service["Unit"]?.[name], undefined);
    assert.equal(guard["Unit"]?.[name], undefined);
  }
  assert.match(service["Unit"]?.["After"] ?? "", /stillpoint-guard\.service/);
  assert.equal(service["Service"]?.["Slice"], undefined);
});

test("both run as the unprivileged user, with no way to become more", () => {
  for (const one of [guard, service]) {
    assert.equal(one["Service"]?.["User"], "stillpoint");
    assert.equal(one["Service"]?.["NoNewPrivileges"], "yes");
    assert.equal(one["Service"]?.["CapabilityBoundingSet"], "");
    assert.equal(one["Service"]?.["StateDirectoryMode"], "0700");
  }
});

test("the guard may make setgid folders, which adopted VMs need", () => {
  assert.equal(guard["Service"]?.["RestrictSUIDSGID"], undefined);
});

test("nothing that QEMU needs is taken from it", () => {
  // its translator writes code; KVM is a device; its disks may lie anywhere outside /usr, /boot and /etc
  assert.equal(guard["Service"]?.["MemoryDenyWriteExecute"], undefined);
  assert.equal(guard["Service"]?.["PrivateDevices"], undefined);
  assert.match(guard["Service"]?.["DeviceAllow"] ?? "", /\/dev\/kvm rw/);
  assert.equal(guard["Service"]?.["ProtectSystem"], "full");
  assert.equal(guard["Service"]?.["TasksMax"], "infinity");
});

test("systemd finds nothing wrong with the units", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "stillpoint-units-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const paths: string[] = [];
  for (const name of ["stillpoint-guard.service", "stillpoint.service"]) {
    // the program need not be installed here, and neither must its user
    const text = readFileSync(join(repo, "systemd", name), "utf8")
      .replaceAll(/^ExecStart=\S+/gm, `ExecStart=${process.execPath}`)
      .replaceAll(/^(User|Group)=stillpoint$/gm, "$1=root");
    paths.push(join(folder, name));
    await writeFile(join(folder, name), text);
  }
  const { status, stdout, stderr, error } = spawnSync("systemd-analyze", ["verify", ...paths], { encoding: "utf8" });
  assert.equal(error, undefined, "systemd-analyze is missing; install the package systemd");
  assert.equal(
    `${stdout}${stderr}`
      .split("\n")
      .filter((line) => /stillpoint/.test(line))
      .join("\n"),
    "",
  );
  assert.equal(status, 0);
});
