import { z } from "zod";
import { StillpointError } from "../base/index.ts";
import { clip } from "./arm/ids.ts";
import { machineProperties } from "./extensions/machines.ts";
import { recordProperties } from "./extensions/recordSchema.ts";
import { restoreProperties } from "./extensions/restores.ts";

/** The published shapes of our own providers' `properties`, api-version 2026-11-01. */
const SCHEMAS: Readonly<Record<string, z.ZodType>> = {
  "record.json": recordProperties,
  "machine.json": machineProperties,
  "restore.json": restoreProperties,
};

export function schemaFor(name: string): unknown {
  const schema = SCHEMAS[name.toLowerCase()];
  if (!schema)
    throw new StillpointError("NotFound", `There is no schema '${clip(name)}'.`, {
      target: "name",
      remedy: `There are ${Object.keys(SCHEMAS).join(", ")}.`,
    });
  return z.toJSONSchema(schema, { io: "output", unrepresentable: "any" });
}
