import type { Json } from "./client.ts";

export type Format = "json" | "table";

/** A column: its title and where its value stands (`properties.diskSizeGB`), or how it is made. */
export type Column = readonly [title: string, value: string | ((item: Json) => unknown)];

/** What is printed: JSON as the service sent it, or a table. */
export function render(value: unknown, format: Format, columns: readonly Column[]): string {
  if (value === undefined) return "";
  if (format === "json") return `${JSON.stringify(value, null, 2)}\n`;
  const items = (Array.isArray(value) ? value : [value]) as Json[];
  return table(
    columns.map(([title]) => title),
    items.map((item) => columns.map(([, at]) => cell(typeof at === "string" ? valueAt(item, at) : at(item)))),
  );
}

export function valueAt(item: unknown, path: string): unknown {
  return path
    .split(".")
    .reduce<unknown>(
      (value, name) => (value !== null && typeof value === "object" ? (value as Json)[name] : undefined),
      item,
    );
}

/** The resource group in an id. */
export function groupOf(item: Json): string {
  return /\/resourceGroups\/([^/]+)/i.exec(String(item["id"] ?? ""))?.[1] ?? "";
}

/** The name at the end of an id. */
export function nameIn(id: unknown): unknown {
  return typeof id === "string" ? id.slice(id.lastIndexOf("/") + 1) : undefined;
}

function cell(value: unknown): string {
  if (value === undefined || value === null) return "";
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  // What a guest or another client wrote must not steer the terminal.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: exactly these are to go
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?");
}

function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = titles.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]) =>
    cells
      .map((text, i) => text.padEnd(widths[i] ?? 0))
      .join("  ")
      .trimEnd();
  return `${[line(titles), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n")}\n`;
}
