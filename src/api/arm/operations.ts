import { ERROR_STATUS, type ErrorCode, type OperationId, StillpointError } from "../../base/index.ts";
import type { Domain, Operation } from "../../domain/index.ts";
import { envelope } from "./errors.ts";
import { SUBSCRIPTION } from "./ids.ts";
import type { ArmRequest, ArmResponse, Route } from "./routes.ts";
import { armTime } from "./time.ts";
import type { VersionFamily } from "./versions.ts";

/** Whole seconds a client should wait between polls: the smallest, since without it `az` waits 30 s. */
const RETRY_AFTER_SECONDS = 1;

/** The result of a finished operation as its resource's body; undefined when it has none (deletes, power). */
export type ResultOf = (operation: Operation, apiVersion: string) => Promise<unknown>;

function pollPath(operation: Operation, family: VersionFamily): string {
  const subscription = `/subscriptions/${operation.subscriptionId}`;
  if (family === "resources") return `${subscription}/operationresults/${operation.id}`;
  const kind = family === "disk" ? "DiskOperations" : "operations";
  return `${subscription}/providers/Microsoft.Compute/locations/${operation.location}/${kind}/${operation.id}`;
}

/** The headers of a long-running operation, as Azure's providers send them. */
export function pollingHeaders(
  request: ArmRequest,
  operation: Operation,
  family: VersionFamily,
): Record<string, string> {
  const url = `${request.origin}${pollPath(operation, family)}`;
  const version = `api-version=${request.apiVersion}`;
  const retry = { "retry-after": String(RETRY_AFTER_SECONDS) };
  // ARM's own types have only Location; a status URL there would be one no client expects.
  if (family === "resources") return { location: `${url}?${version}`, ...retry };
  return {
    "azure-asyncoperation": `${url}?${version}`,
    location: `${url}?monitor=true&${version}`,
    ...(family === "disk" ? {} : { "azure-asyncnotification": "Enabled" }),
    ...retry,
  };
}

/** The three addresses at which operations are polled. */
export function operationRoutes(domain: Domain, resultOf: ResultOf): Route[] {
  const find = async (request: ArmRequest): Promise<Operation> => {
    const { subscription, operation: id, location } = request.parameters;
    const operation = await domain.getOperation((id ?? "").toLowerCase() as OperationId);
    const here =
      operation.subscriptionId.toLowerCase() === subscription?.toLowerCase() &&
      (location === undefined || operation.location.toLowerCase() === location.toLowerCase());
    if (here) return operation;
    throw new StillpointError("NotFound", `There is no operation '${operation.id}' in this subscription and location.`);
  };
  const poll =
    (family: VersionFamily) =>
    async (request: ArmRequest): Promise<ArmResponse> => {
      const operation = await find(request);
      if (request.query("monitor")?.toLowerCase() === "true") return monitor(request, operation, family);
      const running = operation.status === "InProgress";
      const headers = running ? { "retry-after": String(RETRY_AFTER_SECONDS) } : {};
      return { status: 200, body: await statusBody(request, operation), headers };
    };
  const monitor = async (request: ArmRequest, operation: Operation, family: VersionFamily): Promise<ArmResponse> => {
    if (operation.status === "InProgress")
      return { status: 202, headers: { ...pollingHeaders(request, operation, family), location: request.url } };
    if (operation.status === "Succeeded") {
      const body = await resultOf(operation, request.apiVersion);
      return body === undefined ? { status: 200 } : { status: 200, body };
    }
    const { code, message } = operationError(operation);
    return { status: ERROR_STATUS[code as ErrorCode] ?? 500, body: envelope(code, message) };
  };
  const statusBody = async (request: ArmRequest, operation: Operation) => {
    const output =
      operation.status === "Succeeded" && hasOutput(operation)
        ? await resultOf(operation, request.apiVersion)
        : undefined;
    return {
      startTime: armTime(operation.startTime),
      ...(operation.endTime === null ? {} : { endTime: armTime(operation.endTime) }),
      status: operation.status,
      percentComplete: operation.status === "Succeeded" ? 100 : Math.floor(operation.percent),
      ...(output === undefined ? {} : { properties: { output } }),
      ...(operation.status === "Failed" || operation.status === "Canceled" ? { error: operationError(operation) } : {}),
      name: operation.id,
    };
  };
  const compute = `${SUBSCRIPTION}/providers/Microsoft.Compute/locations/{location}`;
  return [
    {
      method: "GET",
      template: `${compute}/operations/{operation}`,
      type: "locations/operations",
      families: ["compute", "stillpoint"],
      handle: poll("compute"),
    },
    {
      method: "GET",
      template: `${compute}/DiskOperations/{operation}`,
      type: "locations/DiskOperations",
      families: ["disk"],
      handle: poll("disk"),
    },
    {
      method: "GET",
      template: `${SUBSCRIPTION}/operationresults/{operation}`,
      type: "operationresults",
      families: ["resources"],
      handle: async (request) => monitor(request, await find(request), "resources"),
    },
  ];
}

/** Only the disk provider, and our own restores, put the result beside the status. */
function hasOutput(operation: Operation): boolean {
  return operation.kind === "disk-create" || operation.kind === "disk-update" || operation.kind === "restore";
}

/** Clients need both code and message of a failed operation. */
function operationError(operation: Operation): { readonly code: string; readonly message: string } {
  if (operation.error) return operation.error;
  return operation.status === "Canceled"
    ? { code: "OperationCanceled", message: "The operation was canceled." }
    : { code: "InternalError", message: "The operation failed without a recorded reason." };
}
