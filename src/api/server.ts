import type { AddressInfo } from "node:net";
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { type Clock, type Random, StillpointError, withDeadline } from "../base/index.ts";
import type { Domain } from "../domain/index.ts";
import { tokenCheck } from "./access/token.ts";
import { BODY_LIMIT_BYTES, parseJson } from "./arm/body.ts";
import { answerFor, envelope } from "./arm/errors.ts";
import { checkSegment } from "./arm/ids.ts";
import { pollingHeaders } from "./arm/operations.ts";
import type { ArmRequest, Route } from "./arm/routes.ts";
import { unknownPath } from "./arm/unknown.ts";
import { checkVersion } from "./arm/versions.ts";
import { allRoutes } from "./routes.ts";
import { schemaFor } from "./schemas.ts";

/** What the API writes to the log: a subset of pino's logger. */
export interface ApiLog {
  debug(facts: object, message: string): void;
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

export interface ApiOptions {
  readonly domain: Domain;
  /** The only token that is answered. */
  readonly token: string;
  readonly tls: { readonly key: string; readonly cert: string };
  readonly region: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: ApiLog;
  /** Why the service cannot take work right now; empty when it can. */
  readonly health: () => Promise<readonly string[]>;
}

export interface Api {
  /** Binds a loopback address; port 0 picks a free one. Resolves to the base URL once connections are taken. */
  listen(host: string, port: number): Promise<{ readonly url: string; readonly port: number }>;
  /** For a renewed certificate: new connections use it. */
  setCertificate(tls: { readonly key: string; readonly cert: string }): void;
  /** Stops taking connections, waits for running requests (bounded by their own deadline). */
  close(): Promise<void>;
}

/** Longest time a request may be worked on; long work runs as an operation. */
const HANDLER_MS = 60_000;
const MAX_CONNECTIONS = 512;

/** The HTTPS server. Everything but /healthz and /readyz needs the bearer token, unknown paths included. */
export function createApi(options: ApiOptions): Api {
  const app = Fastify({
    https: {
      key: options.tls.key,
      cert: options.tls.cert,
      minVersion: "TLSv1.2",
      maxHeaderSize: 16 * 1024,
      headersTimeout: 15_000,
      connectionsCheckingInterval: 5_000,
    },
    bodyLimit: BODY_LIMIT_BYTES,
    requestTimeout: 30_000,
    connectionTimeout: 90_000,
    keepAliveTimeout: 65_000,
    routerOptions: {
      caseSensitive: false,
      // Ids are bounded by the header limit; the router's own default would cut long names off with a 404.
      maxParamLength: 2048,
    },
    exposeHeadRoutes: false,
    genReqId: () => options.random.uuid(),
    logger: false,
    rewriteUrl: (request) => collapseProviderSlashes(request.url ?? "/"),
    frameworkErrors: (error, request, reply) => {
      const bears = tokenCheck(options.token)(request.headers.authorization);
      const problem = bears ? urlError(error) : unauthenticated(request);
      reply.headers(idHeaders(request, reply));
      void sendError(reply as FastifyReply, request.id, problem, options.log);
    },
    clientErrorHandler: (_error, socket) => {
      const body = JSON.stringify(envelope("BadRequest", "The request is not HTTP that this service understands."));
      if (socket.writable)
        socket.end(
          `HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
        );
    },
  }) as unknown as FastifyInstance;
  app.server.maxConnections = MAX_CONNECTIONS;
  addAccess(app, options);
  addBodies(app);
  addHealth(app, options);
  const routes = allRoutes(options.domain);
  for (const route of routes) addRoute(app, route, options);
  app.get("/schemas/:name", async (request, reply) => reply.send(schemaFor((request.params as { name: string }).name)));
  app.setNotFoundHandler(async (request) => {
    throw unknownPath(request.method, request.url, routes);
  });
  app.setErrorHandler(async (error, request, reply) => sendError(reply, request.id, translate(error), options.log));
  return {
    listen: async (host, port) => {
      await app.listen({ host, port });
      const bound = (app.server.address() as AddressInfo).port;
      return { url: `https://${host.includes(":") ? `[${host}]` : host}:${bound}`, port: bound };
    },
    setCertificate: (tls) => (app.server as unknown as import("node:https").Server).setSecureContext(tls),
    close: () => app.close(),
  };
}

/** Public paths that say nothing but whether the service is alive. */
const OPEN_PATHS = new Set(["/healthz", "/readyz"]);

function addAccess(app: FastifyInstance, { token, log, clock }: ApiOptions): void {
  const bears = tokenCheck(token);
  const started = new WeakMap<FastifyRequest, number>();
  app.addHook("onRequest", async (request, reply) => {
    started.set(request, clock.monotonicMs());
    reply.headers(idHeaders(request, reply as FastifyReply));
    reply
      .header("cache-control", "no-cache")
      .header("strict-transport-security", "max-age=31536000")
      .header("x-content-type-options", "nosniff");
    if (OPEN_PATHS.has(request.url.split("?")[0] ?? "")) return;
    if (!bears(request.headers.authorization)) throw unauthenticated(request);
  });
  app.addHook("onResponse", async (request, reply) => {
    const ms = Math.round(clock.monotonicMs() - (started.get(request) ?? clock.monotonicMs()));
    // The path only: query strings may carry tokens of a page or a signature.
    log.debug(
      { requestId: request.id, method: request.method, path: request.url.split("?")[0], status: reply.statusCode, ms },
      "request",
    );
  });
}

function unauthenticated(request: {
  readonly headers: { readonly authorization?: string | undefined };
}): StillpointError {
  return request.headers.authorization === undefined
    ? new StillpointError("AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.", {
        target: "Authorization",
        remedy: "Send 'Authorization: Bearer' with the token of the service's token file.",
      })
    : new StillpointError(
        "AuthenticationFailed",
        "Authentication failed. The 'Authorization' header does not bear a valid token.",
        {
          target: "Authorization",
          remedy: "Send 'Authorization: Bearer' with the token of the service's token file.",
        },
      );
}

/** The ids Azure puts on every answer; a client's own correlation id travels on when it is a harmless one. */
function idHeaders(request: Pick<FastifyRequest, "id" | "headers">, _reply: unknown): Record<string, string> {
  const harmless = (value: unknown): value is string => typeof value === "string" && /^[A-Za-z0-9-]{1,64}$/.test(value);
  const correlation = request.headers["x-ms-correlation-request-id"];
  const client = request.headers["x-ms-client-request-id"];
  const echo = String(request.headers["x-ms-return-client-request-id"]).toLowerCase() === "true";
  return {
    "x-ms-request-id": request.id,
    "x-ms-correlation-request-id": harmless(correlation) ? correlation : request.id,
    ...(echo && harmless(client) ? { "x-ms-client-request-id": client } : {}),
  };
}

/** Every body is read as text and as JSON only, whatever it says it is. */
function addBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "string" }, async (_request: FastifyRequest, body: string | Buffer) =>
    body.length === 0 ? undefined : parseJson(String(body)),
  );
}

function addHealth(app: FastifyInstance, { health }: ApiOptions): void {
  app.get("/healthz", async () => ({ status: "ok" }));
  app.get("/readyz", async (_request, reply) => {
    const problems = await health();
    return problems.length === 0 ? { status: "ready" } : reply.code(503).send({ status: "not ready", problems });
  });
}

function addRoute(app: FastifyInstance, route: Route, { region }: ApiOptions): void {
  app.route({
    method: route.method,
    url: route.template.replace(/\{(\w+)\}/g, ":$1"),
    handler: async (raw, reply) => {
      const request = armRequest(raw, route, region);
      const response = await withDeadline(HANDLER_MS, `The answer to ${route.method} of a ${route.type}`, () =>
        route.handle(request),
      );
      if (response.operation) reply.headers(pollingHeaders(request, response.operation, route.families[0]));
      if (response.headers) reply.headers(response.headers);
      reply.code(response.status);
      if (response.body === undefined) return reply.send();
      return reply.type("application/json; charset=utf-8").send(JSON.stringify(response.body));
    },
  });
}

function armRequest(raw: FastifyRequest, route: Route, region: string): ArmRequest {
  const query = new Map(
    Object.entries(raw.query as Record<string, string | string[]>).map(([name, value]) => [
      name.toLowerCase(),
      Array.isArray(value) ? value[0] : value,
    ]),
  );
  const apiVersion = checkVersion(query.get("api-version"), route.families, route.type, region);
  const parameters = raw.params as Record<string, string>;
  for (const [name, value] of Object.entries(parameters)) checkSegment(name, value);
  const origin = `https://${hostOf(raw)}`;
  return {
    parameters,
    query: (name) => query.get(name.toLowerCase()),
    body: raw.body,
    apiVersion,
    origin,
    url: `${origin}${raw.originalUrl}`,
  };
}

/** The host for absolute links: as the client called it when that is a loopback name, else the socket's own. */
function hostOf(raw: FastifyRequest): string {
  const host = raw.headers.host ?? "";
  if (/^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/i.test(host)) return host;
  const { localAddress, localPort } = raw.socket;
  return `${localAddress?.includes(":") ? `[${localAddress}]` : localAddress}:${localPort}`;
}

/** What the router could not read; its own message would send the whole URL back. */
function urlError(error: { readonly code: string }): StillpointError {
  return error.code === "FST_ERR_MAX_PARAM_LENGTH"
    ? new StillpointError("InvalidResourceName", "A name in the path is far too long.", { target: "path" })
    : new StillpointError("BadRequest", "The path of the request is not valid percent-encoded UTF-8.", {
        target: "path",
      });
}

/** Some clients send `…/providers/Microsoft.Compute//disks/…`; an empty segment elsewhere is a missing name. */
function collapseProviderSlashes(url: string): string {
  const [path = "", ...query] = url.split("?");
  const collapsed = path.replace(/(\/providers\/[^/]+)\/{2,}/gi, "$1/");
  return [collapsed, ...query].join("?");
}

/** Fastify's own errors in ARM's words. */
function translate(error: unknown): unknown {
  const code = (error as { code?: string }).code;
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE")
    return new StillpointError(
      "RequestEntityTooLarge",
      `The request content is longer than ${BODY_LIMIT_BYTES} bytes.`,
      { target: "body" },
    );
  if (code === "FST_ERR_CTP_INVALID_CONTENT_LENGTH")
    return new StillpointError("BadRequest", "The request content is shorter or longer than its Content-Length.", {
      target: "body",
    });
  return error;
}

async function sendError(reply: FastifyReply, requestId: string, error: unknown, log: ApiLog): Promise<FastifyReply> {
  const answer = answerFor(error, requestId);
  if (answer.defect || answer.status >= 500) log.error({ requestId, err: error }, "request failed");
  if (answer.status === 401) reply.header("www-authenticate", "Bearer");
  if (answer.status === 503) reply.header("retry-after", "5");
  return reply.code(answer.status).type("application/json; charset=utf-8").send(JSON.stringify(answer.body));
}
