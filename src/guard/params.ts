import { StillpointError } from "../base/index.ts";
import { checkMachineSpec, type MachineSpec } from "../hypervisors/qemu/index.ts";
import type { GuardMethod } from "./protocol.ts";

type Check = (value: unknown, at: string) => void;

/**
 * The shape of each call's parameters, checked before anything is done with them. A capture's id becomes a folder's
 * name and a VM's id another: both are of closed form.
 */
const PARAMS: { readonly [M in GuardMethod]: Check } = {
  hello: fields({ version: integer, events: optional(nullable(fields({ epoch: text, after: integer }))) }),
  "vm.start": fields({ spec: machineSpec }),
  "vm.powerOff": fields({ vm: uuid, graceMs: integer }),
  "vm.deallocate": fields({ vm: uuid, graceMs: integer }),
  "vm.forget": fields({ vm: uuid }),
  "vm.adopt": fields({ vm: uuid, qmpSocket: text, qgaSocket: nullable(text) }),
  "vm.release": fields({ vm: uuid, steps: list(step) }),
  "vm.list": fields({}),
  "vm.inspect": fields({ vm: uuid }),
  "vm.nbd": fields({ vm: uuid }),
  "vm.execute": fields({ vm: uuid, step }),
  "capture.open": fields({
    capture: captureId,
    vm: uuid,
    incarnation: text,
    giveUp: fields({ before: list(step), after: list(step) }),
    jobs: list(text),
    silenceMs: integer,
  }),
  "capture.scratch": fields({
    capture: captureId,
    scratch: fields({ name: scratchName, kind: scratchKind, virtualSizeBytes: integer, reserveBytes: integer }),
  }),
  "capture.serve": fields({ capture: captureId }),
  "capture.step": fields({ capture: captureId, step }),
  "capture.instant": fields({
    capture: captureId,
    transaction: step,
    freeze: nullable(fields({ deadlineMs: integer })),
    statuses: list(text),
  }),
  "capture.check": fields({ capture: captureId }),
  "capture.giveUp": fields({ capture: captureId, reason: text }),
  "capture.close": fields({ capture: captureId, steps: list(step) }),
  "capture.list": fields({}),
};

/** Throws BadRequest naming the first parameter that is not as the protocol says. */
export function checkParams(method: string, params: unknown): asserts method is GuardMethod {
  if (!Object.hasOwn(PARAMS, method)) throw new StillpointError("BadRequest", `The guard knows no call '${method}'.`);
  PARAMS[method as GuardMethod](params, "params");
}

function step(value: unknown, at: string): void {
  fields({
    name: text,
    execute: text,
    arguments: record,
    tolerate: optional(list(text)),
    untilJobEnds: optional(text),
  })(value, at);
}

function fields(checks: Readonly<Record<string, Check>>): Check {
  return (value, at) => {
    const given = record(value, at);
    for (const [name, check] of Object.entries(checks)) check(given[name], `${at}.${name}`);
  };
}

function list(check: Check): Check {
  return (value, at) => {
    if (!Array.isArray(value) || value.length > 4096) throw wrong(at, "a list");
    for (const [index, item] of value.entries()) check(item, `${at}[${index}]`);
  };
}

function optional(check: Check): Check {
  return (value, at) => (value === undefined ? undefined : check(value, at));
}

function nullable(check: Check): Check {
  return (value, at) => (value === null ? undefined : check(value, at));
}

function record(value: unknown, at: string): Readonly<Record<string, unknown>> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw wrong(at, "an object");
}

function text(value: unknown, at: string): void {
  if (typeof value !== "string" || value.length > 4096 || value.includes("\0")) throw wrong(at, "a text");
}

function integer(value: unknown, at: string): void {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw wrong(at, "a whole number from 0");
}

function matching(pattern: RegExp, what: string): Check {
  return (value, at) => {
    if (typeof value !== "string" || !pattern.test(value)) throw wrong(at, what);
  };
}

function uuid(value: unknown, at: string): void {
  matching(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, "a lower-case UUID")(value, at);
}

function captureId(value: unknown, at: string): void {
  matching(/^[0-9a-z][0-9a-z-]{0,63}$/, "1-64 of a-z, 0-9 and '-'")(value, at);
}

function scratchName(value: unknown, at: string): void {
  matching(/^[a-z0-9-]{1,40}$/, "1-40 of a-z, 0-9 and '-'")(value, at);
}

function scratchKind(value: unknown, at: string): void {
  matching(/^(fleece|staging)$/, "fleece or staging")(value, at);
}

function machineSpec(value: unknown, at: string): void {
  fields({ firmware: record, disks: list(record), nics: list(record) })(value, at);
  checkMachineSpec(value as MachineSpec);
}

function wrong(at: string, expected: string): StillpointError {
  return new StillpointError("BadRequest", `${at} must be ${expected}.`, { target: at });
}
