/** A small judge over the published OpenAPI files: does a body fit a definition, is a status declared? */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../../../shared/spec/specification");
const COMPUTE = join(ROOT, "compute/resource-manager/Microsoft.Compute");
export const FILES = {
  restorePoint: join(COMPUTE, "ComputeRP/stable/2024-07-01/restorePoint.json"),
  virtualMachine: join(COMPUTE, "ComputeRP/stable/2024-07-01/virtualMachine.json"),
  disk: join(COMPUTE, "DiskRP/stable/2024-03-02/disk.json"),
  diskRestorePoint: join(COMPUTE, "DiskRP/stable/2024-03-02/diskRestorePoint.json"),
  resources: join(ROOT, "resources/resource-manager/Microsoft.Resources/stable/2024-11-01/resources.json"),
} as const;

/** For a test's `skip`: the published files are not part of this repository. */
export const missing = existsSync(ROOT) ? false : "../shared/spec is not there";

interface Schema {
  readonly $ref?: string;
  readonly allOf?: readonly Schema[];
  readonly type?: string;
  readonly format?: string;
  readonly enum?: readonly unknown[];
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly items?: Schema;
  readonly readOnly?: boolean;
}
interface Place {
  readonly file: string;
  readonly schema: Schema;
}
interface Document {
  readonly definitions: Readonly<Record<string, Schema>>;
  readonly paths: Readonly<
    Record<string, Readonly<Record<string, { readonly responses: Readonly<Record<string, unknown>> }>>>
  >;
}

const documents = new Map<string, Document>();
function load(file: string): Document {
  const known = documents.get(file);
  if (known) return known;
  const document = JSON.parse(readFileSync(file, "utf8")) as Document;
  documents.set(file, document);
  return document;
}

export function example(file: keyof typeof FILES, name: string): ReturnType<typeof JSON.parse> {
  return JSON.parse(readFileSync(join(dirname(FILES[file]), "examples", name), "utf8"));
}

/** The statuses that the operation declares. */
export function statuses(file: keyof typeof FILES, method: string, path: string): string[] {
  const found = Object.entries(load(FILES[file]).paths).find(
    ([template]) => template.toLowerCase() === path.toLowerCase(),
  );
  return Object.keys(found?.[1][method.toLowerCase()]?.responses ?? {});
}

function follow({ file, schema }: Place): Place {
  if (schema.$ref === undefined) return { file, schema };
  const [path = "", pointer = ""] = schema.$ref.split("#");
  const target = path === "" ? file : resolve(dirname(file), path);
  const name = pointer.split("/").at(-1) ?? "";
  const found = load(target).definitions[name];
  if (!found) throw new Error(`${file}: no definition for ${schema.$ref}`);
  return follow({ file: target, schema: found });
}

/** All members of an object schema, its `allOf` included. */
function members(place: Place): {
  readonly properties: Map<string, Place>;
  readonly required: Set<string>;
  readonly open: Place | boolean;
} {
  const { file, schema } = follow(place);
  const properties = new Map<string, Place>();
  const required = new Set(schema.required ?? []);
  let open: Place | boolean =
    typeof schema.additionalProperties === "object"
      ? { file, schema: schema.additionalProperties }
      : (schema.additionalProperties ?? false);
  for (const base of schema.allOf ?? []) {
    const inherited = members({ file, schema: base });
    for (const [name, member] of inherited.properties) properties.set(name, member);
    for (const name of inherited.required) required.add(name);
    if (inherited.open !== false) open = inherited.open;
  }
  for (const [name, member] of Object.entries(schema.properties ?? {})) properties.set(name, { file, schema: member });
  return { properties, required, open };
}

/** What does not fit, as sentences with a path; empty when all fits. Members that are not defined do not fit. */
export function problems(file: keyof typeof FILES, definition: string, body: unknown): string[] {
  return check({ file: FILES[file], schema: { $ref: `#/definitions/${definition}` } }, body, definition);
}

function check(place: Place, value: unknown, path: string): string[] {
  const { file, schema } = follow(place);
  if (schema.enum && !schema.enum.includes(value)) return [`${path}: ${JSON.stringify(value)} is not in the enum`];
  if (schema.type === "array")
    return Array.isArray(value)
      ? value.flatMap((item, i) => check({ file, schema: schema.items ?? {} }, item, `${path}[${i}]`))
      : [`${path}: no list`];
  if (schema.type !== undefined && schema.type !== "object") return scalar(schema, value, path);
  if (schema.properties || schema.allOf || schema.additionalProperties) return object(place, value, path);
  return [];
}

function scalar({ type, format }: Schema, value: unknown, path: string): string[] {
  const fits = type === "integer" ? Number.isInteger(value) : typeof value === type;
  if (!fits) return [`${path}: ${JSON.stringify(value)} is no ${type}`];
  const instant = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;
  return format === "date-time" && !instant.test(String(value)) ? [`${path}: ${value} is no date-time`] : [];
}

function object(place: Place, value: unknown, path: string): string[] {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [`${path}: no object`];
  const { properties, required, open } = members(place);
  const absent = [...required]
    .filter((name) => !(name in value))
    .map((name) => `${path}.${name}: required, but absent`);
  const found = Object.entries(value).flatMap(([name, member]) => {
    const known = properties.get(name);
    if (known) return check(known, member, `${path}.${name}`);
    if (open === false) return [`${path}.${name}: not defined`];
    return open === true ? [] : check(open, member, `${path}.${name}`);
  });
  return [...absent, ...found];
}
