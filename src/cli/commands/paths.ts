import type { CommonOptions, Context } from "../context.ts";
import { computePath } from "../ids.ts";

export function vmPath({ subscription }: Context, options: CommonOptions): string {
  return computePath(subscription, String(options["resourceGroup"]), "virtualMachines", String(options["name"]));
}

export function pointPath({ subscription }: Context, group: string, collection: string, point: string): string {
  return computePath(subscription, group, "restorePointCollections", collection, "restorePoints", point);
}
