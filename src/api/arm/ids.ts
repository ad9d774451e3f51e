import { type ResourceId, StillpointError } from "../../base/index.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
/** Azure's rule for names of compute resources; without dots, so that a name is also safe as part of a file name. */
const RESOURCE_NAME = /^[A-Za-z0-9_][A-Za-z0-9_-]{0,79}$/;
/** A disk restore point is called `{disk}_{uuid}`: longer than what a user may choose. */
const LONG_NAME = /^[A-Za-z0-9_][A-Za-z0-9_-]{0,159}$/;
/** Azure's rule for groups: dots are allowed, but not as the last character and not alone. */
const GROUP_NAME = /^(?=.{1,90}$)[A-Za-z0-9_()-][A-Za-z0-9_().-]*(?<!\.)$/;

const PLAIN = { pattern: RESOURCE_NAME, rule: "1 to 80 letters, digits, '_' or '-', not beginning with '-'" };

/** What a path template's `{parameter}` may hold, and what Azure's documentation calls it. Others are free of rules. */
const RULES: Readonly<
  Record<string, { readonly words: string; readonly target: string; readonly pattern: RegExp; readonly rule: string }>
> = {
  group: {
    words: "resource group",
    target: "resourceGroupName",
    pattern: GROUP_NAME,
    rule: "1 to 90 letters, digits, '_', '-', '.', '(' or ')', not beginning or ending with '.'",
  },
  disk: { words: "disk", target: "diskName", ...PLAIN },
  vm: { words: "virtual machine", target: "vmName", ...PLAIN },
  collection: { words: "restore point collection", target: "restorePointCollectionName", ...PLAIN },
  point: { words: "restore point", target: "restorePointName", ...PLAIN },
  diskRestorePoint: {
    words: "disk restore point",
    target: "diskRestorePointName",
    pattern: LONG_NAME,
    rule: "1 to 160 letters, digits, '_' or '-', not beginning with '-'",
  },
};

/**
 * Checks what stands at a template's parameter `segment`. Throws InvalidResourceName or InvalidSubscriptionId with
 * `target` naming the path's segment, or the member when the id stood in a body.
 */
export function checkSegment(segment: string, value: string, target?: string): void {
  if (segment === "subscription") {
    if (UUID.test(value)) return;
    throw new StillpointError(
      "InvalidSubscriptionId",
      `The provided subscription identifier '${clip(value)}' is malformed or invalid.`,
      { target: target ?? "subscriptionId", remedy: "A subscription id is a UUID." },
    );
  }
  const rule = RULES[segment];
  if (!rule || rule.pattern.test(value)) return;
  throw new StillpointError("InvalidResourceName", `'${clip(value)}' is not a valid ${rule.words} name.`, {
    target: target ?? rule.target,
    remedy: `A name is ${rule.rule}.`,
  });
}

/** Checks a name given in a body (a VM's new name, a group's). */
export function checkedName(kind: "group" | "disk" | "vm", value: string, target: string): string {
  checkSegment(kind, value, target);
  return value;
}

export type PathParameters = Readonly<Record<string, string>>;

/** The canonical id for a template such as `/subscriptions/{subscription}/resourceGroups/{group}`. */
export function fill(template: string, parameters: PathParameters): ResourceId {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => parameters[name] ?? "") as ResourceId;
}

export const SUBSCRIPTION = "/subscriptions/{subscription}";
export const GROUP = `${SUBSCRIPTION}/resourceGroups/{group}`;

/** Templates of ids that may stand in a body, by type. */
const TEMPLATES = {
  "Microsoft.Resources/resourceGroups": GROUP,
  "Microsoft.Compute/disks": `${GROUP}/providers/Microsoft.Compute/disks/{disk}`,
  "Microsoft.Compute/virtualMachines": `${GROUP}/providers/Microsoft.Compute/virtualMachines/{vm}`,
  "Microsoft.Compute/restorePointCollections/restorePoints/diskRestorePoints": `${GROUP}/providers/Microsoft.Compute/restorePointCollections/{collection}/restorePoints/{point}/diskRestorePoints/{diskRestorePoint}`,
} as const;
export type ReferenceType = keyof typeof TEMPLATES;

/**
 * An id given in a body, in canonical form: keywords in Azure's spelling, names as given, without a trailing slash.
 * Throws InvalidResourceReference naming `target` when it is no id or one of another type.
 */
export function reference(type: ReferenceType, text: string, target: string): ResourceId {
  const template: string = TEMPLATES[type];
  const wanted = template.split("/");
  const given = text.replace(/\/$/, "").split("/");
  const parameters: Record<string, string> = {};
  const fits =
    text.length <= 2048 &&
    given.length === wanted.length &&
    wanted.every((segment, i) => {
      const parameter = /^\{(\w+)\}$/.exec(segment)?.[1];
      if (parameter === undefined) return segment.toLowerCase() === given[i]?.toLowerCase();
      parameters[parameter] = given[i] ?? "";
      return true;
    });
  if (!fits)
    throw new StillpointError("InvalidResourceReference", `'${clip(text)}' is not the id of a ${type}.`, {
      target,
      remedy: `Give an id of the form ${template}.`,
    });
  for (const [segment, value] of Object.entries(parameters)) checkSegment(segment, value, target);
  return fill(template, parameters);
}

/** A user's text for an error message: bounded, and free of control characters. */
export function clip(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: exactly these are to go
  const clean = text.replace(/[\u0000-\u001f\u007f]/g, "?");
  return clean.length > 120 ? `${clean.slice(0, 120)}…` : clean;
}
