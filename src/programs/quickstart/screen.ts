/** Progress for people: one line per step, rewritten in place on a terminal, printed once elsewhere. */
import type { Clock } from "../../base/index.ts";

export interface Screen {
  /** Runs a step under a heading; the heading ends with its seconds and what `work` returned to say. */
  step<T>(
    title: string,
    work: (progress: (text: string) => void) => Promise<T>,
    tell?: (result: T) => string,
  ): Promise<T>;
  say(line: string): void;
}

export function createScreen(out: NodeJS.WriteStream, clock: Clock): Screen {
  const width = () => Math.max(40, (out.columns ?? 80) - 1);
  const draw = (text: string) => {
    if (out.isTTY) out.write(`\r\x1b[2K${text.slice(0, width())}`);
  };
  return {
    say: (line) => void out.write(`${line}\n`),
    step: async (title, work, tell) => {
      const startMs = clock.monotonicMs();
      draw(`… ${title}`);
      try {
        const result = await work((text) => draw(`… ${title}: ${text}`));
        const seconds = ((clock.monotonicMs() - startMs) / 1000).toFixed(1);
        const told = tell?.(result);
        draw("");
        out.write(`ok ${title}${told ? `: ${told}` : ""} (${seconds} s)\n`);
        return result;
      } catch (error) {
        draw("");
        out.write(`FAILED ${title}\n`);
        throw error;
      }
    },
  };
}

/** A bar of 20 cells. */
export function bar(percent: number): string {
  const cells = Math.max(0, Math.min(20, Math.round(percent / 5)));
  return `[${"#".repeat(cells)}${".".repeat(20 - cells)}] ${Math.floor(percent)} %`;
}

/** Rows as aligned columns; the first row is the heading. */
export function table(rows: readonly (readonly string[])[]): readonly string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  const [heading, ...rest] = rows;
  return heading ? [line(heading), widths.map((width) => "-".repeat(width)).join("  "), ...rest.map(line)] : [];
}

/** 12345678 → `11.8 MiB`. */
export function sized(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let shown = value;
  let unit = 0;
  while (shown >= 1024 && unit < units.length - 1) {
    shown /= 1024;
    unit++;
  }
  return `${unit === 0 ? shown : shown.toFixed(1)} ${units[unit]}`;
}
