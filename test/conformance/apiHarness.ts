/** Starts the real HTTPS server over a domain, and speaks to it as a client that trusts its authority. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import type { IncomingHttpHeaders } from "node:http";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { createApi, ensureCertificate, ensureToken } from "../../src/api/index.ts";
import { systemClock, systemRandom } from "../../src/base/index.ts";
import type { Domain } from "../../src/domain/index.ts";

export const SUBSCRIPTION = "00000000-0000-0000-0000-000000000001";
export const GROUP = `/subscriptions/${SUBSCRIPTION}/resourceGroups/rg1`;
export const COMPUTE = `${GROUP}/providers/Microsoft.Compute`;

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The parsed body; undefined when empty. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever the server sent
  readonly body: any;
}

export interface Client {
  readonly url: string;
  readonly dataDir: string;
  readonly logged: { readonly level: string; readonly facts: object; readonly message: string }[];
  /** Stops answering for a while, then goes on at the same address. */
  restart(pauseMs: number): Promise<void>;
  /** `path` is absolute, with query; `body` is sent as JSON unless it is a string. */
  call(method: string, path: string, body?: unknown, headers?: Record<string, string | undefined>): Promise<Answer>;
}

const VERSION_OF: readonly (readonly [RegExp, string])[] = [
  [/\/providers\/stillpoint\./i, "2026-11-01"],
  [/\/(disks|diskrestorepoints|diskoperations)(\/|$)/i, "2022-07-02"],
  [/\/providers\/microsoft\.compute/i, "2024-07-01"],
  [/./, "2021-04-01"],
];

/** The path with an api-version that its type supports. */
export function at(path: string, query = ""): string {
  const version = VERSION_OF.find(([pattern]) => pattern.test(path))?.[1];
  return `${path}?${query}${query ? "&" : ""}api-version=${version}`;
}

export async function startApi(test: TestContext, domain: Domain, problems: readonly string[] = []): Promise<Client> {
  const dataDir = await mkdtemp(join(tmpdir(), "stillpoint-api-"));
  const tls = await ensureCertificate(dataDir, systemClock);
  const { token } = await ensureToken(dataDir, systemRandom);
  const ca = await readFile(tls.caFile, "utf8");
  const logged: { level: string; facts: object; message: string }[] = [];
  const to = (level: string) => (facts: object, message: string) => void logged.push({ level, facts, message });
  const log = { debug: to("debug"), info: to("info"), warn: to("warn"), error: to("error") };
  const begin = () =>
    createApi({
      domain,
      token,
      tls,
      region: "local",
      clock: systemClock,
      random: systemRandom,
      log,
      health: async () => problems,
    });
  let api = begin();
  const { url, port: bound } = await api.listen("127.0.0.1", 0);
  test.after(async () => {
    await api.close();
    await rm(dataDir, { recursive: true });
  });
  const call: Client["call"] = (method, path, body, headers = {}) =>
    new Promise((resolve, reject) => {
      // Host, port and path apart: as one URL, Node would resolve dots in names away.
      const target = path.startsWith("https:") ? path.slice(url.length) : path;
      const { hostname, port } = new URL(url);
      const to = { host: hostname, port, path: target, servername: "localhost" };
      const payload = body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body);
      const all = { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers };
      const sent = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as Record<
        string,
        string
      >;
      // A fresh connection each time: a refused upload must not poison the next request.
      const req = request({ ...to, method, headers: sent, ca, agent: false }, (response) => {
        const parts: Buffer[] = [];
        response.on("data", (part: Buffer) => parts.push(part));
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(parts).toString("utf8");
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text,
            body: text === "" ? undefined : JSON.parse(text),
          });
        });
      });
      req.on("error", reject);
      req.end(payload);
    });
  const restart = async (pauseMs: number) => {
    await api.close();
    await systemClock.sleep(pauseMs);
    api = begin();
    await api.listen("127.0.0.1", bound);
  };
  return { url, dataDir, logged, call, restart };
}
