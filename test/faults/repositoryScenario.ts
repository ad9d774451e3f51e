/** A short life of a repository: points with and without an anchor, a deletion, collections. Told step by step. */
import { bytes, CHUNK_BYTES } from "../../src/base/index.ts";
import type { Repository } from "../../src/repository/index.ts";
import { publish, writePoint } from "../../src/repository/testing/harness.ts";

const DISK_CHUNKS = 3;

export function scenarioImages(): readonly Buffer[] {
  const image = (fill: (chunk: number) => string) =>
    Buffer.concat(
      Array.from({ length: DISK_CHUNKS }, (_, chunk) => Buffer.alloc(CHUNK_BYTES, fill(chunk))).concat(
        Buffer.alloc(512),
      ),
    );
  return [
    image((chunk) => `first ${chunk} `),
    image((chunk) => (chunk === 1 ? "second 1 " : `first ${chunk} `)),
    image((chunk) => (chunk === 1 ? "second 1 " : `third ${chunk} `)),
  ];
}

/** `mark` is called when something has been promised: `commit {uid}` after it, `delete {uid}` before it may happen. */
export async function liveThrough(repository: Repository, mark: (name: string) => void): Promise<void> {
  const [first, second, third] = scenarioImages() as [Buffer, Buffer, Buffer];
  const one = await writePoint(repository, { image: first, name: "p0" });
  await publish(repository, "commit", { point: "p0", manifest: one.manifest, pointId: "p0", collectionId: "c" });
  mark("commit p0");
  const ranges = [[CHUNK_BYTES, 2 * CHUNK_BYTES]] as const;
  const two = await writePoint(repository, { image: second, anchor: one.tree, ranges, name: "p1" });
  await publish(repository, "commit", { point: "p1", manifest: two.manifest, pointId: "p1", collectionId: "c" });
  mark("commit p1");
  mark("delete p0");
  await publish(repository, "delete", { point: "p0", pointId: "p0" });
  for (let round = 0; round < 3; round++) await repository.collect({ manifests: [two.manifest], trees: [] });
  const three = await writePoint(repository, { image: third, name: "p2" });
  await publish(repository, "commit", { point: "p2", manifest: three.manifest, pointId: "p2", collectionId: "c" });
  mark("commit p2");
  mark("delete p1");
  await publish(repository, "delete", { point: "p1", pointId: "p1" });
  for (let round = 0; round < 3; round++) await repository.collect({ manifests: [three.manifest], trees: [] });
  const reader = await repository.openDisk(three.tree);
  await reader.read(bytes(0), bytes(512));
  await reader.close();
}
