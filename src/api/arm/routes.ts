import type { Operation } from "../../domain/index.ts";
import type { PathParameters } from "./ids.ts";
import type { VersionFamily } from "./versions.ts";

/** A request after authentication, api-version and path names have been checked. */
export interface ArmRequest {
  readonly parameters: PathParameters;
  /** Query parameter by name, whatever its case. */
  query(name: string): string | undefined;
  /** The parsed JSON; undefined when there was none. */
  readonly body: unknown;
  readonly apiVersion: string;
  /** Scheme and host as the client called it: for absolute links. */
  readonly origin: string;
  /** The absolute URL of the request. */
  readonly url: string;
}

export interface ArmResponse {
  readonly status: number;
  /** undefined: no content. */
  readonly body?: unknown;
  /** Adds the polling headers. */
  readonly operation?: Operation;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One operation of one resource type. `template` is the canonical path with `{parameter}`s; matching ignores case. */
export interface Route {
  readonly method: "GET" | "HEAD" | "PUT" | "PATCH" | "POST" | "DELETE";
  readonly template: string;
  /** The type as error messages name it. */
  readonly type: string;
  /** Whose api-versions hold; the first also decides where its operations are polled. */
  readonly families: readonly [VersionFamily, ...VersionFamily[]];
  readonly handle: (request: ArmRequest) => Promise<ArmResponse>;
}

export const ok = (body: unknown): ArmResponse => ({ status: 200, body });

/** What a client gets for a change: `done` when it was made at once, `running` beside an operation. */
export function accepted(
  result: { readonly operation: Operation | null },
  body: unknown,
  status: { readonly done: number; readonly running: number },
): ArmResponse {
  return result.operation === null
    ? { status: status.done, body }
    : { status: status.running, body, operation: result.operation };
}

/** A delete's answer: 204 nothing there, 200 done, 202 under way. */
export function deleted(result: Operation | "done" | null): ArmResponse {
  if (result === null) return { status: 204 };
  return result === "done" ? { status: 200 } : { status: 202, operation: result };
}
