import { type IdKey, idKey, type ResourceId } from "../base/index.ts";
import type { Page, PageOptions } from "./commands.ts";
import type { PageRequest } from "./ports.ts";

const MAX_PAGE = 1_000;

/** One more row than the page holds, to know whether another follows. */
export function pageRequest(page: PageOptions): PageRequest {
  return { after: page.after as IdKey | null, limit: limitOf(page) + 1 };
}

export function pageOf<T extends { readonly id: ResourceId }>(rows: readonly T[], page: PageOptions): Page<T> {
  const value = rows.slice(0, limitOf(page));
  const last = value.at(-1);
  return { value, next: rows.length > value.length && last ? idKey(last.id) : null };
}

function limitOf(page: PageOptions): number {
  return Math.max(1, Math.min(MAX_PAGE, page.limit));
}

/** All rows of a list that is bounded by what a host can hold, read page by page. */
export async function everyPage<T extends { readonly id: ResourceId }>(
  read: (page: PageRequest) => Promise<readonly T[]>,
): Promise<readonly T[]> {
  const all: T[] = [];
  for (let after: IdKey | null = null; ; ) {
    const page = await read({ after, limit: 200 });
    all.push(...page);
    const last = page.at(-1);
    if (!last || page.length < 200) return all;
    after = idKey(last.id);
  }
}
