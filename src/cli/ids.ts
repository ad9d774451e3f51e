import { CliFailure } from "./failure.ts";

/** Api-versions this program speaks. */
const VERSIONS = {
  resources: "2021-04-01",
  compute: "2024-07-01",
  disk: "2024-03-02",
  stillpoint: "2026-11-01",
} as const;
export type Family = keyof typeof VERSIONS;

/** `path` with its api-version and, when given, further query parameters. */
export function versioned(path: string, family: Family, query: Readonly<Record<string, string>> = {}): string {
  return `${path}?${new URLSearchParams({ ...query, "api-version": VERSIONS[family] })}`;
}

/** One segment of a path. An empty name, or one of dots alone, would address something above it in the tree. */
function segment(name: string): string {
  if (name === "") throw new CliFailure(2, "A name must not be empty.");
  if (name === "." || name === "..") throw new CliFailure(2, `'${name}' is not a name.`);
  return encodeURIComponent(name);
}

export const subscriptionPath = (subscription: string) => `/subscriptions/${segment(subscription)}`;
export const groupPath = (subscription: string, group: string) =>
  `${subscriptionPath(subscription)}/resourceGroups/${segment(group)}`;

/** `…/providers/Microsoft.Compute/{type}/{name}/{type}/{name}…` below a group. */
export function computePath(subscription: string, group: string, ...typesAndNames: readonly string[]): string {
  const tail = typesAndNames.map((part, i) => (i % 2 === 0 ? part : segment(part))).join("/");
  return `${groupPath(subscription, group)}/providers/Microsoft.Compute/${tail}`;
}

/** An id as it is, or a name as the id of that resource in the group. */
export function idOrName(
  value: string,
  subscription: string,
  group: string,
  type: "disks" | "virtualMachines",
): string {
  return value.startsWith("/") ? value : computePath(subscription, group, type, value);
}
