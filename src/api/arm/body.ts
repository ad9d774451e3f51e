import { createHash } from "node:crypto";
import { z } from "zod";
import { StillpointError } from "../../base/index.ts";
import { clip } from "./ids.ts";

/** ARM's limit for what we serve is far above any real request; it bounds what one request can cost. */
export const BODY_LIMIT_BYTES = 1024 * 1024;
/** Deepest nesting of a body: real ones stay below 12. */
const MAX_DEPTH = 64;

/** The body as a value. Throws InvalidRequestContent when it is not JSON or nested too deeply. */
export function parseJson(text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new StillpointError(
      "InvalidRequestContent",
      `The request content was invalid and could not be deserialized: '${clip((error as Error).message)}'.`,
      { target: "body", remedy: "Send JSON." },
    );
  }
  checkDepth(value, 0);
  return value;
}

function checkDepth(value: unknown, depth: number): void {
  if (value === null || typeof value !== "object") return;
  if (depth >= MAX_DEPTH)
    throw new StillpointError(
      "InvalidRequestContent",
      `The request content is nested deeper than ${MAX_DEPTH} levels.`,
      {
        target: "body",
      },
    );
  for (const member of Object.values(value)) checkDepth(member, depth + 1);
}

/**
 * An object of a request body: member names match whatever their case (ARM's rule: templates spell `datadisks`), null
 * counts as absent, unknown members are errors. Nested objects must be made the same way.
 */
export function armObject<Shape extends z.core.$ZodShape>(shape: Shape) {
  const canonical = new Map(Object.keys(shape).map((name) => [name.toLowerCase(), name]));
  return z.preprocess((value, context) => {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
    const renamed: Record<string, unknown> = {};
    for (const [name, member] of Object.entries(value)) {
      if (member === null) continue;
      const known = canonical.get(name.toLowerCase());
      // defineProperty: a member called __proto__ must become an unknown member, not a prototype.
      const key = known ?? name;
      if (Object.hasOwn(renamed, key))
        context.addIssue({ code: "custom", message: `is given twice`, path: [key], input: value });
      Object.defineProperty(renamed, key, { value: member, enumerable: true, configurable: true, writable: true });
    }
    return renamed;
  }, z.strictObject(shape));
}

/** One of a set of words, whatever its case; the output has Azure's spelling. */
export function armEnum<const Words extends readonly [string, ...string[]]>(words: Words) {
  return z.preprocess(
    (value) =>
      typeof value === "string" ? (words.find((word) => word.toLowerCase() === value.toLowerCase()) ?? value) : value,
    z.enum(words, { error: `must be one of ${words.join(", ")}` }),
  );
}

/** A whole number; templates send numbers as strings. */
export function armInt(min: number, max: number) {
  const message = `must be a whole number from ${min} to ${max}`;
  return z.preprocess(
    (value) => (typeof value === "string" && /^\d{1,15}$/.test(value) ? Number(value) : value),
    z.int({ error: message }).min(min, { error: message }).max(max, { error: message }),
  );
}

/** true or false; templates send booleans as strings. */
export const armBoolean = z.preprocess(
  (value) => (typeof value === "string" && /^(true|false)$/i.test(value) ? value.toLowerCase() === "true" : value),
  z.boolean({ error: "must be true or false" }),
);

/** A member that only the server writes: a client may send back what it read, and it is ignored. */
export const readOnly = z.unknown().optional();

export const text = (max: number) =>
  z
    .string({ error: "must be a string" })
    .min(1, { error: "must not be empty" })
    .max(max, { error: `must not be longer than ${max} characters` });

/** ARM's limits for tags: 50, names of 512 and values of 256 characters. */
export const tagsSchema = z
  .record(
    z
      .string()
      .min(1)
      .max(512, { error: "a tag's name must not be longer than 512 characters" })
      .regex(/^[^<>%&\\?/]*$/, { error: "a tag's name must not contain < > % & \\ ? /" }),
    z
      .string({ error: "a tag's value must be a string" })
      .max(256, { error: "a tag's value must not be longer than 256 characters" }),
  )
  .refine((tags) => Object.keys(tags).length <= 50, { error: "must not have more than 50 tags" });

/** ARM compares locations without case and spaces: `East US` is `eastus`. */
export const locationSchema = text(90).transform((location) => location.toLowerCase().replaceAll(" ", ""));

/** `body` as what the schema says. Throws with `target` naming the member: unknown ones as InvalidRequestContent, wrong ones as InvalidParameter. */
export function parseBody<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  if (body === undefined || body === null || typeof body !== "object" || Array.isArray(body))
    throw new StillpointError("InvalidRequestContent", "The request content was invalid: a JSON object is needed.", {
      target: "body",
    });
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const found = result.error.issues.flatMap(describe);
  const first = found[0] ?? { code: "InvalidRequestContent" as const, path: "body", sentence: "The body is invalid." };
  const more = found.slice(1, 5).map((issue) => issue.sentence);
  throw new StillpointError(first.code, [first.sentence, ...more].join(" "), { target: first.path });
}

interface Finding {
  readonly code: "InvalidRequestContent" | "InvalidParameter";
  readonly path: string;
  readonly sentence: string;
}

function describe(issue: z.core.$ZodIssue): Finding[] {
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => {
      const path = pathText([...issue.path, clip(key)]);
      return { code: "InvalidRequestContent", path, sentence: `Could not find member '${path}': it is unknown here.` };
    });
  const path = pathText(issue.path) || "body";
  if (
    issue.code === "invalid_type" &&
    issue.input === undefined &&
    !("expected" in issue && issue.message.startsWith("must"))
  )
    return [{ code: "InvalidParameter", path, sentence: `Required parameter '${path}' is missing (null).` }];
  return [
    { code: "InvalidParameter", path, sentence: `The value of parameter '${path}' is invalid: ${issue.message}.` },
  ];
}

function pathText(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, part) =>
      typeof part === "number" ? `${text}[${part}]` : text === "" ? String(part) : `${text}.${String(part)}`,
    "",
  );
}

/** JSON with sorted member names and without absent members: equal requests give equal text. */
function canonicalJson(value: unknown): string {
  if (value === null || typeof value !== "object") return JSON.stringify(value ?? null);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`);
  return `{${members.join(",")}}`;
}

/** SHA-256 (hex) of the canonical JSON. */
export function bodyHash(value: unknown): string {
  return createHash("sha256").update(canonicalJson(value)).digest("hex");
}

/** A member of Azure's that this version cannot honour: naming it is an error, never a silent loss. */
export const unsupported = (why: string) =>
  z
    .unknown()
    .optional()
    .refine((value) => value === undefined, { error: why });
