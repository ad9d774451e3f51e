import { StillpointError } from "../../base/index.ts";
import type { ArmRequest } from "./routes.ts";

const PAGE_LIMIT = 100;

/** Where the request's page begins. A `$skiptoken` names the last key seen, so pages stay right while rows come and go. */
export function pageOptions(request: ArmRequest): { readonly after: string | null; readonly limit: number } {
  const token = request.query("$skiptoken");
  if (token === undefined) return { after: null, limit: PAGE_LIMIT };
  const after = Buffer.from(token, "base64url").toString("utf8");
  if (after === "" || token.length > 4096 || Buffer.from(after, "utf8").toString("base64url") !== token)
    throw new StillpointError("InvalidParameter", "The $skiptoken is not one that this service gave.", {
      target: "$skiptoken",
      remedy: "Follow nextLink as it is.",
    });
  return { after, limit: PAGE_LIMIT };
}

/** ARM's list body; `nextLink` is absolute and keeps the request's other query parameters. */
export function pageBody(request: ArmRequest, value: readonly unknown[], next: string | null): unknown {
  if (next === null) return { value };
  const url = new URL(request.url);
  url.searchParams.set("$skiptoken", Buffer.from(next, "utf8").toString("base64url"));
  return { value, nextLink: url.href };
}

/** All of a list that the domain bounds (the points of a collection). */
export async function all<T>(
  list: (page: {
    after: string | null;
    limit: number;
  }) => Promise<{ readonly value: readonly T[]; readonly next: string | null }>,
): Promise<T[]> {
  const items: T[] = [];
  let after: string | null = null;
  do {
    const page = await list({ after, limit: 500 });
    items.push(...page.value);
    after = page.next;
  } while (after !== null);
  return items;
}
