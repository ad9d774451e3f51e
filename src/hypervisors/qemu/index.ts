export { type Accelerator, type AcceleratorFacts, chooseAccelerator, readAcceleratorFacts } from "./accelerator.ts";
export { AGENT_CHARDEV, type LaunchSettings, qemuArguments } from "./argv.ts";
export { type JobFacts, readAgentChannel, readFacts, readJobs, readStatus } from "./facts.ts";
export { type Json, list as jsonList, object as jsonObject } from "./read.ts";
export { checkMachineSpec } from "./spec.ts";
export type {
  AdoptedMachine,
  BitmapFacts,
  DiskBus,
  DiskFacts,
  DiskFormat,
  MachineDisk,
  MachineNic,
  MachineSpec,
  NvramFacts,
  QemuFacts,
} from "./types.ts";
