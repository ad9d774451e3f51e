/**
 * QEMU series whose behaviour the capture suite has shown, and how a disk in an iothread is read there. Never by ≥: a
 * newer series earns its row by running the suite. What each row rests on: docs/operations.md, "QEMU versions".
 */
const TESTED: Readonly<Record<string, { readonly iothreadDisks: "pull" | "push" }>> = {
  // An NBD client that leaves an export of an iothread disk aborts this QEMU and kills the guest.
  "7.2": { iothreadDisks: "push" },
  "10.0": { iothreadDisks: "pull" },
};

export interface VersionRule {
  readonly tested: boolean;
  readonly iothreadDisks: "pull" | "push";
}

/** The rule for a version such as `7.2.22`. An untested series gets the careful way and says so. */
export function versionRule(qemuVersion: string): VersionRule {
  const series = qemuVersion.split(".").slice(0, 2).join(".");
  const row = TESTED[series];
  return row ? { tested: true, ...row } : { tested: false, iothreadDisks: "push" };
}
