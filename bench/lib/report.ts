import { writeFileSync } from "node:fs";

/** One bar of DESIGN: what was measured, what it should be, and whether it holds. A loss is shown as a loss. */
export interface Row {
  readonly what: string;
  readonly measured: string;
  readonly bar: string;
  readonly holds: boolean | null;
  readonly details: Readonly<Record<string, unknown>>;
}

export function row(
  what: string,
  measured: string,
  bar: string,
  holds: boolean | null,
  details: Row["details"] = {},
): Row {
  return { what, measured, bar, holds, details };
}

/** Prints the table, and writes the same as JSON when a path is given. */
export function report(
  rows: readonly Row[],
  facts: Readonly<Record<string, unknown>>,
  jsonPath: string | undefined,
): void {
  const cells = rows.map((one) => [
    one.holds === null ? "-" : one.holds ? "holds" : "LOSS",
    one.what,
    one.measured,
    one.bar,
  ]);
  const all = [["", "what", "measured", "bar"], ...cells];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...all.map((line) => (line[column] ?? "").length)));
  console.log();
  for (const line of all)
    console.log(
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    );
  console.log(`\n${JSON.stringify(facts)}`);
  if (jsonPath !== undefined) writeFileSync(jsonPath, `${JSON.stringify({ facts, rows }, null, 2)}\n`);
}
