import { StillpointError, type VmUid } from "../base/index.ts";
import type { Machine } from "./machine.ts";

/** The machines under guard, by VM. */
export interface Machines {
  find(vm: VmUid): Machine | undefined;
  /** Throws ResourceNotFound. */
  get(vm: VmUid): Machine;
  put(machine: Machine): void;
  remove(vm: VmUid): void;
  all(): readonly Machine[];
}

export function createMachines(): Machines {
  const byVm = new Map<VmUid, Machine>();
  return {
    find: (vm) => byVm.get(vm),
    get: (vm) => {
      const machine = byVm.get(vm);
      if (machine) return machine;
      throw new StillpointError("ResourceNotFound", `The guard knows no virtual machine ${vm}.`);
    },
    put: (machine) => void byVm.set(machine.place.vm, machine),
    remove: (vm) => {
      byVm.get(vm)?.dispose();
      byVm.delete(vm);
    },
    all: () => [...byVm.values()],
  };
}
