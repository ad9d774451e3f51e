import { StillpointError } from "../../base/index.ts";
import { clip } from "./ids.ts";
import type { Route } from "./routes.ts";

/** Why nothing answers at a path: a name left out, a verb the type does not know, or a type there is not. */
export function unknownPath(method: string, url: string, routes: readonly Route[]): StillpointError {
  const path = decode(url.split("?")[0] ?? "");
  const segments = path.split("/").slice(1);
  const empty = segments.findIndex((segment, i) => segment === "" && (i < segments.length - 1 || i > 0));
  if (empty > 0)
    return new StillpointError(
      "InvalidResourceName",
      `The path has an empty name after '${clip(segments[empty - 1] ?? "")}'.`,
      {
        target: clip(segments[empty - 1] ?? ""),
        remedy: "Give the name.",
      },
    );
  const verbs = [...new Set(routes.filter((route) => fits(route.template, segments)).map((route) => route.method))];
  if (verbs.length > 0)
    return new StillpointError(
      "MethodNotAllowed",
      `The requested resource does not support http method '${clip(method)}'.`,
      {
        remedy: `It supports ${verbs.join(", ")}.`,
      },
    );
  const provider = segments.findLastIndex((segment) => segment.toLowerCase() === "providers");
  if (provider < 0 || segments.length < provider + 3)
    return new StillpointError("NotFound", `There is nothing at '${clip(path)}'.`, { target: "path" });
  const type = segments
    .slice(provider + 2)
    .filter((_, i) => i % 2 === 0)
    .join("/");
  return new StillpointError(
    "InvalidResourceType",
    `The resource type '${clip(type)}' could not be found in the namespace '${clip(segments[provider + 1] ?? "")}'; a name cannot contain '/'.`,
    { target: clip(type) },
  );
}

function fits(template: string, segments: readonly string[]): boolean {
  const wanted = template.split("/").slice(1);
  return (
    wanted.length === segments.length &&
    wanted.every((part, i) => part.startsWith("{") || part.toLowerCase() === segments[i]?.toLowerCase())
  );
}

function decode(path: string): string {
  try {
    return decodeURI(path);
  } catch {
    return path;
  }
}
