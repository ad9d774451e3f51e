import { diskNode, StillpointError } from "../base/index.ts";
import type { Disk, Vm } from "../domain/index.ts";
import type { MachineDisk, MachineSpec } from "../guard/protocol.ts";

/** What the guard needs to start this VM. Disks come in the VM's order, OS disk first. */
export function machineSpec(vm: Vm, disks: readonly Disk[]): MachineSpec {
  const { machine } = vm;
  return {
    vm: vm.vmUid,
    machineType: machine.machineType,
    cpuModel: machine.cpuModel,
    vcpus: vm.vcpus,
    memoryMiB: vm.memoryMiB,
    firmware: machine.firmware === "bios" ? { kind: "bios" } : { kind: "uefi", varsPath: nvramPath(vm) },
    disks: disks.map((disk): MachineDisk => {
      const config = machine.disks[disk.id.toLowerCase()];
      return {
        node: diskNode(disk.diskUid),
        path: imagePath(disk),
        format: disk.format,
        bus: config?.bus ?? "virtio-blk",
        serial: config?.serial ?? disk.diskUid.replaceAll("-", "").slice(0, 20),
        iothread: config?.iothread ?? false,
        ...(config?.bootIndex == null ? {} : { bootIndex: config.bootIndex }),
      };
    }),
    nics: machine.nics,
  };
}

function nvramPath(vm: Vm): string {
  if (vm.nvramPath === null)
    throw new StillpointError("InternalError", `Virtual machine '${vm.name}' boots by UEFI and has no variable store.`);
  return vm.nvramPath;
}

function imagePath(disk: Disk): string {
  if (disk.path === null)
    throw new StillpointError("OperationNotAllowed", `Disk '${disk.name}' has no image yet.`, {
      remedy: "Wait until its creation has ended.",
    });
  return disk.path;
}
