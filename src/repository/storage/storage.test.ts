import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemRandom } from "../../base/index.ts";
import { storageConformance } from "./conformance.ts";
import { directoryStorage } from "./directory.ts";
import { memoryStorage } from "./memory.ts";

storageConformance("directory", async () => {
  const root = await mkdtemp(join(tmpdir(), "stillpoint-storage-"));
  return {
    open: () => directoryStorage({ root, random: systemRandom }),
    remove: () => rm(root, { recursive: true, force: true }),
  };
});

storageConformance("memory", async () => {
  const objects = new Map<string, Buffer>();
  return { open: async () => memoryStorage(objects), remove: async () => {} };
});
