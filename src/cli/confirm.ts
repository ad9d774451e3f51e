import { createInterface } from "node:readline/promises";
import type { CommonOptions, Context } from "./context.ts";
import { CliFailure } from "./failure.ts";

/** Asks on a terminal before something is deleted; a script has said what it wants by calling. */
export async function confirm(
  { surroundings: { stdin, stderr } }: Context,
  options: CommonOptions,
  what: string,
): Promise<void> {
  if (options["yes"] === true || !stdin.isTTY || !stderr.isTTY) return;
  const reader = createInterface({ input: stdin, output: stderr });
  try {
    const answer = await reader.question(`Delete ${what}? (y/n): `);
    if (!/^y(es)?$/i.test(answer.trim())) throw new CliFailure(1, "Nothing was deleted.");
  } finally {
    reader.close();
  }
}
