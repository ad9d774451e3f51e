import { StillpointError } from "../../base/index.ts";
import { assertWritable, type Core, domainOf } from "../core.ts";
import { manifestName, sealManifest } from "../format/manifest.ts";
import { rootLevel } from "../format/node.ts";
import { damaged } from "../format/object.ts";
import { rootId } from "../read/nodes.ts";
import type { PointManifest, PointWriter } from "../types.ts";
import { diskWriter, type OwnedDiskWriter } from "./disk-writer.ts";
import { PackStream } from "./pack-stream.ts";

/** See the contract in types.ts. */
export function pointWriter(core: Core): PointWriter {
  assertWritable(core);
  core.index.assertWhole();
  const keys = domainOf(core, core.platformDomain);
  const { pins, close } = core.pins.openWriter();
  const packs = new PackStream(core, keys, pins);
  const disks: OwnedDiskWriter[] = [];
  let synced = false;

  return {
    disk: async ({ sizeBytes, anchor }) => {
      packs.assertWhole();
      if (sizeBytes === 0 || sizeBytes % 512 !== 0)
        throw new StillpointError("InvalidParameter", `A disk of ${sizeBytes} bytes cannot be stored.`, {
          target: "sizeBytes",
          remedy: "Its size must be a multiple of 512.",
        });
      if (anchor) {
        pins.trees.add(anchor); // before the first wait: a collection must not come between
        await checkAnchor(core, anchor, sizeBytes);
      }
      synced = false;
      const disk = diskWriter({ core, keys, packs, pins, sizeBytes, anchor });
      disks.push(disk);
      return disk;
    },
    sync: async () => {
      await packs.sync();
      synced = true;
    },
    writeManifest: async (manifest: PointManifest) => {
      packs.assertWhole();
      if (!synced) throw new StillpointError("InternalError", "a manifest was written before its packs were durable");
      const salt = core.random.bytes(32);
      const { hash, bytes } = sealManifest(core.key.secret, core.key.repositoryId, core.epoch, salt, manifest);
      pins.manifests.add(hash);
      try {
        await core.storage.create(manifestName(hash), bytes);
      } catch (error) {
        packs.fail(error);
        throw error;
      }
      return hash;
    },
    close: async () => {
      packs.fail(new StillpointError("InternalError", "the point writer was closed"));
      for (const disk of disks) await disk.end();
      await packs.close();
      close();
    },
  };

  /** The anchor's root must be readable now; deeper damage heals or surfaces while the disk is written. */
  async function checkAnchor(
    core: Core,
    anchor: NonNullable<Parameters<PointWriter["disk"]>[0]["anchor"]>,
    size: number,
  ) {
    if (anchor.domain !== keys.domain)
      throw damaged(`tree ${anchor.root}`, `its key domain ${anchor.domain} is not the disk's ${keys.domain}`);
    if (anchor.sizeBytes > size)
      throw new StillpointError("InvalidParameter", "The disk is smaller than its anchor.", {
        target: "anchor",
        remedy: "Read it in full without one.",
      });
    const root = rootId(anchor);
    if (root) await core.nodes.node(domainOf(core, anchor.domain), root, rootLevel(anchor.sizeBytes));
  }
}
