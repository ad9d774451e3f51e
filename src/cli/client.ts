import { Agent, request } from "node:https";
import type { Clock } from "../base/index.ts";
import { ApiFailure, CliFailure } from "./failure.ts";
import type { Connection } from "./settings.ts";

const REQUEST_MS = 90_000;
/** While an operation runs the service may restart: polling goes on for this long without an answer. */
const RESTART_MS = 120_000;
const MAX_ANSWER_BYTES = 256 * 1024 * 1024;

export type Json = Readonly<Record<string, unknown>>;

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Json | undefined;
}

export interface Client {
  /** One request. `path` is absolute, or a whole URL of the service. Throws ApiFailure for any status ≥ 400. */
  call(method: string, path: string, body?: unknown): Promise<Answer>;
  /** A GET that waits for a service that is restarting, up to two minutes. */
  poll(path: string): Promise<Answer>;
  /** All pages of a list. */
  list(path: string): Promise<Json[]>;
  /**
   * A change and, unless `wait` is false, its end: the resource as it then is, or the result of a POST. undefined when
   * there is none. `progress` hears the percentage.
   */
  change(method: string, path: string, body: unknown, options: ChangeOptions): Promise<Json | undefined>;
  close(): void;
}

export interface ChangeOptions {
  readonly wait: boolean;
  readonly progress: (percent: number) => void;
}

export function createClient(connection: Connection, clock: Clock): Client {
  const agent = new Agent({ keepAlive: true, maxSockets: 4, ca: connection.ca });
  const call = async (method: string, path: string, body?: unknown) => {
    const url = path.startsWith("/") ? `${connection.url}${path}` : path;
    // The token goes to the service only, whatever a link says.
    if (!url.startsWith(`${connection.url}/`))
      throw new CliFailure(1, `The service answered with a link to another place: ${url}`);
    const answer = await send(agent, connection, method, url, body);
    if (answer.status >= 400) throw failureOf(answer);
    return answer;
  };
  const list = async (path: string) => {
    const items: Json[] = [];
    let next: string | undefined = path;
    while (next !== undefined) {
      const { body } = await call("GET", next);
      if (!Array.isArray(body?.["value"])) throw new CliFailure(1, `The service's answer to GET ${next} is no list.`);
      items.push(...(body["value"] as Json[]));
      next = body["nextLink"] as string | undefined;
    }
    return items;
  };
  const poll = async (url: string): Promise<Answer> => {
    const deadlineMs = clock.monotonicMs() + RESTART_MS;
    for (;;) {
      try {
        return await call("GET", url);
      } catch (error) {
        const away = error instanceof Unreachable || (error instanceof ApiFailure && error.status === 503);
        if (!away || clock.monotonicMs() > deadlineMs) throw error;
        await clock.sleep(1000);
      }
    }
  };
  const settle = async (first: Answer, progress: (percent: number) => void): Promise<Answer | null> => {
    const status = header(first, "azure-asyncoperation");
    const location = header(first, "location");
    if (status !== undefined) await untilDone(status, progress);
    return location === undefined ? null : untilAnswered(location);
  };
  const untilDone = async (url: string, progress: (percent: number) => void): Promise<void> => {
    for (;;) {
      const answer = await poll(url);
      const { status, percentComplete, error } = answer.body ?? {};
      if (status === "Succeeded") return progress(100);
      if (status === "Failed" || status === "Canceled") throw operationFailure(error);
      if (typeof percentComplete === "number") progress(percentComplete);
      await clock.sleep(retryAfterMs(answer));
    }
  };
  const untilAnswered = async (url: string): Promise<Answer> => {
    for (;;) {
      const answer = await poll(url);
      if (answer.status !== 202) return answer;
      await clock.sleep(retryAfterMs(answer));
    }
  };
  return {
    call,
    poll,
    list,
    change: async (method, path, body, { wait, progress }) => {
      const first = await call(method, path, body);
      const running = header(first, "azure-asyncoperation") ?? header(first, "location");
      if (!wait || running === undefined) return first.body;
      const last = await settle(first, progress);
      if (method === "DELETE") return undefined;
      return method === "POST" ? last?.body : (await call("GET", path)).body;
    },
    close: () => agent.destroy(),
  };
}

/** The service does not answer at all: it may be restarting. */
class Unreachable extends CliFailure {
  constructor(message: string) {
    super(1, message);
  }
}

function send(
  agent: Agent,
  { url: base, token }: Connection,
  method: string,
  url: string,
  body: unknown,
): Promise<Answer> {
  const payload = body === undefined ? undefined : JSON.stringify(body);
  const headers = {
    authorization: `Bearer ${token}`,
    accept: "application/json",
    ...(payload === undefined
      ? {}
      : { "content-type": "application/json", "content-length": Buffer.byteLength(payload) }),
  };
  return new Promise((resolve, reject) => {
    const away = (reason: string) =>
      reject(
        new Unreachable(`Cannot reach the service at ${base}: ${reason}. Is it running? (systemctl status stillpoint)`),
      );
    const outgoing = request(url, { method, headers, agent, signal: AbortSignal.timeout(REQUEST_MS) }, (response) => {
      const parts: Buffer[] = [];
      let length = 0;
      response.on("data", (part: Buffer) => {
        length += part.length;
        if (length > MAX_ANSWER_BYTES) response.destroy(new Error("the answer is too long"));
        else parts.push(part);
      });
      response.on("error", (error) => away(error.message));
      response.on("end", () =>
        resolve(answerOf(response.statusCode ?? 0, response.headers, Buffer.concat(parts).toString("utf8"))),
      );
    });
    outgoing.on("error", (error: NodeJS.ErrnoException) => away(error.code ?? error.message));
    outgoing.end(payload);
  });
}

function answerOf(status: number, headers: Answer["headers"], text: string): Answer {
  if (text === "") return { status, headers, body: undefined };
  try {
    return { status, headers, body: JSON.parse(text) as Json };
  } catch {
    return {
      status: Math.max(status, 500),
      headers,
      body: { error: { code: "InvalidAnswer", message: `The answer is no JSON: ${text.slice(0, 200)}` } },
    };
  }
}

function failureOf(answer: Answer): ApiFailure {
  const error = answer.body?.["error"] as { code?: string; message?: string; target?: string } | undefined;
  const target = error?.target === undefined ? "" : `\nTarget: ${error.target}`;
  return new ApiFailure(
    answer.status,
    error?.code ?? `HTTP ${answer.status}`,
    `${error?.message ?? "no message"}${target}`,
  );
}

function operationFailure(error: unknown): ApiFailure {
  const { code, message } = (error ?? {}) as { code?: string; message?: string };
  return new ApiFailure(200, code ?? "OperationFailed", message ?? "The operation failed.");
}

function header(answer: Answer, name: string): string | undefined {
  const value = answer.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

function retryAfterMs(answer: Answer): number {
  const seconds = Number(header(answer, "retry-after") ?? 1);
  return Number.isFinite(seconds) && seconds >= 0 ? Math.min(seconds, 30) * 1000 : 1000;
}
