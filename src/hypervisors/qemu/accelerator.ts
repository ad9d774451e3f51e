import { accessSync, constants, existsSync, readFileSync } from "node:fs";

export type Accelerator = "kvm" | "tcg";

/** What the choice depends on; from the machine in production. */
export interface AcceleratorFacts {
  readonly deviceUsable: boolean;
  readonly pvmModule: boolean;
  readonly cpuInfo: string;
}

export function readAcceleratorFacts(): AcceleratorFacts {
  return {
    deviceUsable: canOpen("/dev/kvm"),
    pvmModule: existsSync("/sys/module/kvm_pvm"),
    cpuInfo: readFileSync("/proc/cpuinfo", "latin1"),
  };
}

/**
 * KVM only where a stock guest really runs on it. kvm_pvm opens and even runs code, but a guest kernel is still in
 * its decompressor after 40 s, and `-accel kvm -accel tcg` does not fall back because the device opens.
 */
export function chooseAccelerator(wish: "auto" | Accelerator, facts: AcceleratorFacts): Accelerator {
  if (wish !== "auto") return wish;
  const flags = /^flags\s*:.*\b(vmx|svm)\b/m.test(facts.cpuInfo);
  return facts.deviceUsable && !facts.pvmModule && flags ? "kvm" : "tcg";
}

function canOpen(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
