import { createHash } from "node:crypto";
import type { Random } from "../../base/index.ts";

/** Random numbers that a seed repeats. A test prints its seed, so that a failure can be run again. */
export interface Seeded extends Random {
  readonly seed: string;
  /** 0 ≤ n < limit. */
  below(limit: number): number;
  pick<T>(items: readonly T[]): T;
}

export function seeded(seed: string): Seeded {
  let counter = 0;
  const block = () => createHash("sha256").update(`${seed}/${counter++}`).digest();
  const draw = (count: number): Buffer => {
    const parts: Buffer[] = [];
    for (let length = 0; length < count; length += 32) parts.push(block());
    return Buffer.concat(parts).subarray(0, count);
  };
  const below = (limit: number) => block().readUIntBE(0, 6) % limit;
  return {
    seed,
    bytes: draw,
    below,
    pick: (items) => items[below(items.length)] as (typeof items)[number],
    uuid: () =>
      draw(16)
        .toString("hex")
        .replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5"),
  };
}
