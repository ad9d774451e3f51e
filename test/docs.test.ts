import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { configSchema } from "../src/config/index.ts";

const repo = resolve(import.meta.dirname, "..");
const read = (path: string) => readFileSync(join(repo, path), "utf8");

interface Node {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Node>>;
  readonly additionalProperties?: Node | boolean;
  readonly items?: Node;
  readonly default?: unknown;
  readonly required?: readonly string[];
}

/** Every option that can be written, with the text its default would have in the table; null where a person words it. */
function options(node: Node, path = "", required = false): readonly (readonly [string, string | null])[] {
  const children = [
    ...Object.entries(node.properties ?? {}).map(
      ([name, child]) => [path ? `${path}.${name}` : name, child, node.required?.includes(name) ?? false] as const,
    ),
    ...(node.items?.properties
      ? Object.entries(node.items.properties).map(([name, child]) => [`${path}[].${name}`, child, true] as const)
      : []),
    ...(typeof node.additionalProperties === "object" && node.additionalProperties.properties
      ? Object.entries(node.additionalProperties.properties).map(
          ([name, child]) => [`${path}.{name}.${name}`, child, true] as const,
        )
      : []),
  ];
  const isGroup = node.properties !== undefined || path === "";
  const simple = ["string", "number", "boolean"].includes(typeof node.default);
  const own = required && node.default === undefined ? "required" : simple ? `\`${node.default}\`` : null;
  return [
    ...(isGroup ? [] : [[path, own] as const]),
    ...children.flatMap(([at, child, must]) => options(child, at, must)),
  ];
}

test("docs/operations.md explains every option of the configuration with its true default, and no other", () => {
  const schema = z.toJSONSchema(configSchema, { io: "input", unrepresentable: "any" }) as Node;
  const section = read("docs/operations.md").split("## Configuration")[1]?.split("\n## ")[0] ?? "";
  const rows = new Map(
    [...section.matchAll(/^\| `([^`]+)` \| (.*?) \| (.+) \|$/gm)].map(
      ([, name = "", value = "", meaning = ""]) => [name, { value, meaning }] as const,
    ),
  );
  const known = options(schema);
  for (const [name, expected] of known) {
    const row = rows.get(name);
    assert.ok(row, `docs/operations.md says nothing of ${name}`);
    if (expected !== null) assert.equal(row.value, expected, `the default of ${name}`);
    assert.ok(row.meaning.length > 5, name);
  }
  const names = new Set(known.map(([name]) => name));
  for (const name of rows.keys()) assert.ok(names.has(name), `${name} is no option`);
});

test("docs/architecture.md says where each folder of src stands, and the rule for its arrows knows it too", () => {
  const text = read("docs/architecture.md");
  const rule = read(".dependency-cruiser.cjs");
  const table = rule.slice(rule.indexOf("MAY_IMPORT"), rule.indexOf("};"));
  const folders = [...table.matchAll(/^ {2}(\w+): \[/gm)].map(([, name]) => name ?? "");
  assert.ok(folders.length > 10);
  for (const folder of folders) {
    assert.ok(existsSync(join(repo, "src", folder)), `src/${folder} is in the rule and not in the tree`);
    assert.match(text, new RegExp(`^\\| \`${folder}/`, "m"), folder);
  }
});

test("every link between the documents leads somewhere", () => {
  for (const path of ["README.md", "CHANGELOG.md", "docs/operations.md", "docs/architecture.md"])
    for (const [, target = ""] of read(path).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [file = "", anchor] = target.split("#");
      const full = file === "" ? join(repo, path) : join(repo, dirname(path), file);
      assert.ok(existsSync(full), `${path} links to ${target}`);
      if (anchor === undefined) continue;
      const anchors = [...readFileSync(full, "utf8").matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
        heading
          .toLowerCase()
          .replaceAll(/[^\w\- ]/g, "")
          .replaceAll(" ", "-"),
      );
      assert.ok(anchors.includes(anchor), `${path} links to ${target}`);
    }
});
