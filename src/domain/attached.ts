import type { AttachedDisk, Vm } from "./model.ts";

/** The disks of a VM as they are attached, OS disk first. */
export function attachedDisks(vm: Vm): readonly AttachedDisk[] {
  return vm.osDisk ? [vm.osDisk, ...vm.dataDisks] : vm.dataDisks;
}
