/** An own VM that boots by UEFI: its firmware's variables belong to the point and come back with it. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { buildGuest } from "../../setup/guest/index.ts";
import type { ResourceId } from "../../src/base/index.ts";
import type { RestoreOutput, RestorePoint, Vm } from "../../src/domain/index.ts";
import { agentAnswers, bootVm, GROUP, openStack, putCollection, type Stack, takePoint } from "./lib/stack.ts";

describe("a virtual machine that boots by UEFI", () => {
  let stack: Stack;
  let vm: Vm;
  let point: RestorePoint;
  let offline: RestorePoint;
  let variables: Buffer;

  before(async () => {
    const image = await buildGuest(() => {});
    stack = await openStack();
    vm = await bootVm(stack, "vm", [{ name: "os", from: image.osDisk, format: "qcow2" }], { firmware: "uefi" });
    await agentAnswers(stack, vm);
    vm = await stack.domain.getVm(vm.id);
    const collection = await putCollection(stack, vm);
    point = await takePoint(stack, collection, "running");
    await stack.done(await stack.domain.deallocateVm(vm.id));
    offline = await takePoint(stack, collection, "deallocated", null);
    variables = await readFile(vm.nvramPath ?? "");
  });
  after(() => stack?.close());

  async function restored(from: RestorePoint, vmName: string, start: boolean): Promise<Vm> {
    const operation = await stack.domain.restore({
      pointId: from.id,
      targetGroup: GROUP,
      vmName,
      diskNames: {},
      onlyDisks: [],
      start,
      keepIdentity: false,
    });
    const { vm: id } = (await stack.done(operation)).output as RestoreOutput;
    return stack.domain.getVm(id as ResourceId);
  }

  test("the firmware has written its variables, and both points hold them", async () => {
    const template = await readFile(stack.config.host.qemu.firmwareVars);
    assert.equal(variables.length, template.length);
    assert.ok(!variables.equals(template), "the boot changed the store");
    for (const [from, name] of [
      [point, "from-running"],
      [offline, "from-deallocated"],
    ] as const) {
      const back = await restored(from, name, false);
      assert.notEqual(back.nvramPath, vm.nvramPath, "a store of its own");
      assert.ok(variables.equals(await readFile(back.nvramPath ?? "")), `${from.name} holds the variables`);
      assert.equal(from.disks[0]?.hyperVGeneration, "V2");
    }
  });

  test("it boots from its point", async () => {
    const back = await restored(point, "back", true);
    assert.equal(back.machine.firmware, "uefi");
    await agentAnswers(stack, back);
  });
});
