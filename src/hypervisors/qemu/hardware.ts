import { MiB } from "../../base/index.ts";
import type { QmpClient } from "../qmp/index.ts";
import type { FoundDisk } from "./disks.ts";
import { property } from "./qom.ts";
import { list, object, optionalText, size, text } from "./read.ts";
import type { AdoptedMachine } from "./types.ts";

/** State of the guest that lives outside its disks and its firmware's variables. */
const UNCAPTURABLE =
  /^(vfio-|tpm-|ivshmem|vhost-user-|vhost-scsi|virtio-9p|virtio-pmem|nvdimm|usb-host|scsi-block|scsi-generic)/;
const NIC = /^(virtio-net-pci|e1000|e1000e|rtl8139|vmxnet3|igb)/;
/** Firmware given by `-bios`, without flash and so without variables, says by its name alone what it is. */
const UEFI_FILE = /ovmf|edk2|uefi/i;
/** What QEMU says for SeaBIOS, and also beside flash. */
const OWN_FIRMWARE = /^bios(-[a-z0-9]+)?\.bin$/;
/** Beside disks and network cards, what an equal machine has anyway. */
const KNOWN =
  /^(virtio-blk|virtio-scsi|scsi-hd|ide-hd|nvme|virtio-serial|virtserialport|pcie-root-port|pcie-pci-bridge|pci-bridge)/;

interface Device {
  readonly path: string;
  readonly name: string;
  readonly type: string;
}

async function devices(qmp: QmpClient): Promise<readonly Device[]> {
  const found: Device[] = [];
  for (const path of ["/machine/peripheral", "/machine/peripheral-anon"])
    for (const child of list(await qmp.execute("qom-list", { path }))) {
      const type = /^child<(.+)>$/.exec(text(child["type"]))?.[1];
      const name = text(child["name"]);
      if (type) found.push({ path: `${path}/${name}`, name, type });
    }
  return found;
}

export async function readUncapturable(qmp: QmpClient): Promise<readonly string[]> {
  return (await devices(qmp)).filter(({ type }) => UNCAPTURABLE.test(type)).map(({ type, name }) => `${type} ${name}`);
}

export async function readMachine(
  qmp: QmpClient,
  disks: readonly FoundDisk[],
  flash: boolean,
): Promise<AdoptedMachine> {
  const cpus = list(await qmp.execute("query-cpus-fast"));
  const cpuPath = optionalText(cpus[0]?.["qom-path"]);
  const cpuType = cpuPath ? optionalText(await property(qmp, cpuPath, "type")) : "";
  const memory = object(await qmp.execute("query-memory-size-summary"));
  const named = optionalText(await property(qmp, "/machine", "firmware"));
  const firmwareFile = OWN_FIRMWARE.test(named) ? "" : named;
  const all = await devices(qmp);
  const nics = [];
  for (const { path, type } of all)
    if (NIC.test(type)) nics.push({ mac: optionalText(await property(qmp, path, "mac")), model: type });
  return {
    machineType: optionalText(await property(qmp, "/machine", "type")).replace(/-machine$/, ""),
    cpuModel: cpuType.replace(/-(x86_64|i386)-cpu$/, ""),
    vcpus: cpus.length,
    memoryMiB: Math.floor((size(memory["base-memory"]) + size(memory["plugged-memory"] ?? 0)) / MiB),
    firmware: flash || UEFI_FILE.test(firmwareFile) ? "uefi" : "bios",
    firmwareFile,
    disks: disks.map(({ facts, bus }) => ({ node: facts.node, bus })),
    nics,
    otherDevices: all
      .filter(({ type }) => !NIC.test(type) && !KNOWN.test(type) && !UNCAPTURABLE.test(type))
      .map(({ type, name }) => `${type} ${name}`),
  };
}
