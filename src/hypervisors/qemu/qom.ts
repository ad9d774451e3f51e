import { type QmpClient, QmpError } from "../qmp/index.ts";

/** A property of an object in QEMU; undefined when it has none of that name. */
export async function property(qmp: QmpClient, path: string, name: string): Promise<unknown> {
  try {
    return await qmp.execute("qom-get", { path, property: name });
  } catch (error) {
    if (error instanceof QmpError) return undefined;
    throw error;
  }
}
