/** A small client of the HTTPS API: what a script of the operator's own would do. */
import { readFile } from "node:fs/promises";
import { Agent, request } from "node:https";
import { type Clock, StillpointError } from "../../base/index.ts";

const REQUEST_TIMEOUT_MS = 70_000;
const POLL_MS = 250;

/** The newest version of each family of resource types that this client was written against. */
const VERSIONS: readonly (readonly [RegExp, string])[] = [
  [/\/providers\/Stillpoint\./i, "2026-11-01"],
  [/\/disks(\/|$)|\/diskRestorePoints(\/|$)/i, "2025-01-02"],
  [/\/providers\/Microsoft\.Compute\//i, "2025-04-01"],
  [/./, "2025-04-01"],
];

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: unknown;
}

interface OperationStatus {
  readonly status: string;
  readonly percentComplete?: number;
  readonly error?: { readonly code: string; readonly message: string };
  readonly properties?: { readonly output?: unknown };
}

export interface ApiClient {
  /** The body of a GET. */
  get<T>(path: string): Promise<T>;
  /**
   * PUT, POST, PATCH or DELETE, and the end of the operation it starts, if any; its progress is told on the way.
   * Resolves with the operation's output or the answer's body. Throws with the server's own words when it fails.
   */
  send<T>(
    method: "PUT" | "POST" | "PATCH" | "DELETE",
    path: string,
    options: { readonly body?: unknown; readonly timeoutMs: number; readonly progress?: (percent: number) => void },
  ): Promise<T>;
  /** Whether the service says it can take work. */
  ready(): Promise<boolean>;
  close(): void;
}

/** A client for the service whose `client.json` this is. */
export async function openClient(clientFile: string, clock: Clock): Promise<ApiClient> {
  const { url, tokenFile, caFile } = JSON.parse(await readFile(clientFile, "utf8")) as Record<string, string>;
  if (!url || !tokenFile || !caFile) throw new StillpointError("InvalidParameter", `${clientFile} is incomplete.`);
  const token = (await readFile(tokenFile, "utf8")).trim();
  const agent = new Agent({ keepAlive: true, ca: await readFile(caFile) });
  const call = async (method: string, path: string, body?: unknown): Promise<Answer> => {
    const answer = await exchange(new URL(path, url), method, token, agent, body);
    if (answer.status >= 400) throw failure(answer, `${method} ${path}`);
    return answer;
  };
  return {
    get: async <T>(path: string) => (await call("GET", withVersion(path))).body as T,
    send: async <T>(method: string, path: string, options: Parameters<ApiClient["send"]>[2]) => {
      const answer = await call(method, withVersion(path), options.body);
      const poll = answer.headers["azure-asyncoperation"] ?? answer.headers["location"];
      if (typeof poll !== "string") return answer.body as T;
      const endsMs = clock.monotonicMs() + options.timeoutMs;
      for (;;) {
        const { status, body } = await call("GET", new URL(poll).pathname + new URL(poll).search);
        const operation = (body ?? { status: status === 202 ? "InProgress" : "Succeeded" }) as OperationStatus;
        if (operation.percentComplete !== undefined) options.progress?.(operation.percentComplete);
        if (operation.status === "Succeeded") return (operation.properties?.output ?? answer.body) as T;
        if (operation.status !== "InProgress") throw failure({ ...answer, body: operation }, `${method} ${path}`);
        if (clock.monotonicMs() > endsMs)
          throw new StillpointError("DeadlineExceeded", `${method} ${path} was not done in ${options.timeoutMs} ms.`);
        await clock.sleep(POLL_MS);
      }
    },
    ready: async () => (await exchange(new URL("/readyz", url), "GET", token, agent)).status === 200,
    close: () => agent.destroy(),
  };
}

function withVersion(path: string): string {
  const [bare = ""] = path.split("?");
  const version = VERSIONS.find(([pattern]) => pattern.test(bare))?.[1];
  return `${path}${path.includes("?") ? "&" : "?"}api-version=${version}`;
}

/** The server's error as ours, with what was asked. */
function failure(answer: Answer, asked: string): StillpointError {
  const { error } = (answer.body ?? {}) as { error?: { code?: string; message?: string } };
  return new StillpointError(
    "InternalError",
    `${asked}: ${error?.code ?? answer.status}: ${error?.message ?? "no words"}`,
  );
}

function exchange(url: URL, method: string, token: string, agent: Agent, body?: unknown): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const payload = body === undefined ? null : Buffer.from(JSON.stringify(body));
    const headers = {
      authorization: `Bearer ${token}`,
      ...(payload ? { "content-type": "application/json", "content-length": payload.length } : {}),
    };
    const sent = request(url, { method, agent, headers, timeout: REQUEST_TIMEOUT_MS }, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(parts).toString("utf8");
        try {
          const parsed: unknown = text === "" ? undefined : JSON.parse(text);
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: parsed });
        } catch (cause) {
          reject(new StillpointError("InternalError", `${method} ${url.pathname}: the answer is not JSON.`, { cause }));
        }
      });
    });
    sent.on("timeout", () => sent.destroy(new Error(`no answer within ${REQUEST_TIMEOUT_MS} ms`)));
    sent.on("error", (cause) =>
      reject(new StillpointError("HypervisorUnavailable", `The service did not answer: ${cause.message}.`, { cause })),
    );
    sent.end(payload ?? undefined);
  });
}
