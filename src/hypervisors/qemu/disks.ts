import type { QmpClient } from "../qmp/index.ts";
import { type BlockGraph, underFilters } from "./graph.ts";
import { property } from "./qom.ts";
import { flag, type Json, object, optionalList, optionalObject, optionalText, size, text } from "./read.ts";
import type { BitmapFacts, DiskBus, DiskFacts, NvramFacts } from "./types.ts";

export interface FoundDisk {
  readonly facts: DiskFacts;
  readonly bus: DiskBus | "other";
}

/** One entry of `query-block`, completed by what the device itself tells. */
export async function readDisk(qmp: QmpClient, graph: BlockGraph, device: Json): Promise<FoundDisk> {
  const qdev = text(device["qdev"]);
  const path = qdev.startsWith("/") ? qdev : `/machine/peripheral/${qdev}`;
  const top = text(object(device["inserted"])["node-name"]);
  const { node, filters } = underFilters(graph, top);
  // Below a filter whose edges cannot be read, the top is all there is; `filters` then forbids touching it.
  const info = graph.node(node) ?? object(device["inserted"]);
  const image = object(info["image"]);
  const controller = await controllerOf(qmp, path);
  const bootIndex = await property(qmp, path, "bootindex");
  const facts: DiskFacts = {
    node,
    device: qdev,
    path: hostPath(graph, node),
    format: text(info["drv"]),
    qcow2Version: qcow2Version(image),
    sizeBytes: size(image["virtual-size"]),
    allocatedBytes: size(image["actual-size"] ?? image["virtual-size"]),
    iothread: await hasIothread(qmp, controller ?? path),
    readOnly: flag(info["ro"]),
    serial: optionalText(await property(qmp, path, "serial")),
    bootIndex: typeof bootIndex === "number" && bootIndex >= 0 ? bootIndex : null,
    filters,
    bitmaps: bitmaps(info),
    stopsOnWriteError: (await property(qmp, path, "werror")) === "stop",
  };
  return { facts, bus: busOf(optionalText(await property(qmp, path, "type")), controller) };
}

/** The variable store of UEFI firmware: the flash device that can be written. */
export function readNvram(graph: BlockGraph, flash: readonly Json[]): NvramFacts | null {
  for (const device of flash) {
    const inserted = object(device["inserted"]);
    if (flag(inserted["ro"])) continue;
    const { node } = underFilters(graph, text(inserted["node-name"]));
    const image = object((graph.node(node) ?? inserted)["image"]);
    return { node, sizeBytes: size(image["virtual-size"]), path: hostPath(graph, node) };
  }
  return null;
}

/** The file under a format node; a node over anything else (a device, a network) has none. */
function hostPath(graph: BlockGraph, node: string): string {
  let name: string | undefined = node;
  for (let depth = 0; name !== undefined && depth < 8; depth++) {
    if (graph.driver(name) === "file") return optionalText(optionalObject(graph.node(name)?.["image"])["filename"]);
    name = graph.below(name);
  }
  return "";
}

function qcow2Version(image: Json): 2 | 3 | null {
  const specific = optionalObject(image["format-specific"]);
  if (specific["type"] !== "qcow2") return null;
  return optionalObject(specific["data"])["compat"] === "0.10" ? 2 : 3;
}

/** Named bitmaps only: the anonymous ones belong to running jobs. */
function bitmaps(info: Json): readonly BitmapFacts[] {
  return optionalList(info["dirty-bitmaps"])
    .filter((bitmap) => optionalText(bitmap["name"]) !== "")
    .map((bitmap) => ({
      name: text(bitmap["name"]),
      recording: flag(bitmap["recording"]),
      inconsistent: flag(bitmap["inconsistent"]),
      persistent: flag(bitmap["persistent"]),
      granularityBytes: size(bitmap["granularity"]),
      dirtyBytes: size(bitmap["count"]),
    }));
}

/** For a SCSI disk its controller's path; null for a disk that is its own. */
async function controllerOf(qmp: QmpClient, path: string): Promise<string | null> {
  if (path.endsWith("/virtio-backend")) return null;
  const bus = optionalText(await property(qmp, path, "parent_bus"));
  return bus.includes("/virtio-backend/") ? bus.slice(0, bus.lastIndexOf("/")) : null;
}

/** A single iothread, or (from 9.0 on) a mapping of queues to several. */
async function hasIothread(qmp: QmpClient, path: string): Promise<boolean> {
  if (optionalText(await property(qmp, path, "iothread")) !== "") return true;
  const mapping = await property(qmp, path, "iothread-vq-mapping");
  return Array.isArray(mapping) && mapping.length > 0;
}

function busOf(type: string, controller: string | null): DiskBus | "other" {
  if (type.startsWith("virtio-blk")) return "virtio-blk";
  return type === "scsi-hd" && controller ? "virtio-scsi" : "other";
}
