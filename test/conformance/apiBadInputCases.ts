/** What a client can get wrong, as data: what it is, what is sent, and the code and field the answer must name. */
import { COMPUTE, GROUP, SUBSCRIPTION } from "./apiHarness.ts";

export interface Case {
  readonly what: string;
  readonly method: string;
  /** An api-version that fits is added to a path without a query. */
  readonly path: string;
  readonly body: unknown;
  readonly code: string;
  /** The field that the answer must name as `target`; null: not looked at. */
  readonly target: string | null;
  readonly status: number;
  /** Must stand in the message: the remedy, or the value. */
  readonly says: RegExp;
}
type More = { readonly status?: number; readonly says?: RegExp };
type Row = readonly [what: string, body: unknown, target: string | null, code?: string | undefined, more?: More];

const request = (method: string, path: string, rows: readonly Row[]): Case[] =>
  rows.map(([what, body, target, code = "InvalidParameter", { status = 400, says = /./ } = {}]) => {
    return { what, method, path, body, code, target, status, says };
  });
const place = (what: string, path: string, target: string | null, code: string, more: More = {}): Case[] =>
  request("PUT", path, [[what, {}, target, code, more]]);

export const VM = `${COMPUTE}/virtualMachines/vm1`;
export const COLLECTION = `${COMPUTE}/restorePointCollections/rpc1`;
export const POINT = `${COLLECTION}/restorePoints/rp1`;
const DISK = `${COMPUTE}/disks/d1`;
const MIB = 1024 * 1024;
const NAME = "InvalidResourceName";
const CONTENT = "InvalidRequestContent";
const REFERENCE = "InvalidResourceReference";
const NOT_REGISTERED = "NoRegisteredProviderFound";

const attach = (more: object) => ({ createOption: "Attach", managedDisk: { id: DISK }, ...more });
const properties = (value: object) => ({ properties: value });
const located = (value: object, more: object = {}) => ({ location: "local", ...more, properties: value });
export const vm = (storageProfile: object, more: object = {}) =>
  located({
    hardwareProfile: { vmSize: "s" },
    storageProfile: { osDisk: attach({ osType: "Linux" }), ...storageProfile },
    ...more,
  });
const data = (more: object) => vm({ dataDisks: [attach({ lun: 0, ...more })] });
const disk = (value: object, more: object = {}) =>
  located({ creationData: { createOption: "Empty" }, diskSizeGB: 1, ...value }, more);
const creation = (createOption: string, more: object = {}) => disk({ creationData: { createOption, ...more } });
const deep = (levels: number) => `${'{"a":'.repeat(levels)}1${"}".repeat(levels)}`;
const many = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);

const NAMES: Case[] = [
  ...place("a slash", `${COLLECTION}/restorePoints/a%2Fb`, "restorePointName", NAME, {
    says: /'a\/b'.*A name is 1 to 80/,
  }),
  ...place("a bare slash", `${POINT}/b`, "restorePointCollections/restorePoints/b", "InvalidResourceType", {
    status: 404,
  }),
  ...place("a dot", `${COLLECTION}/restorePoints/a.b`, "restorePointName", NAME),
  ...place("two dots", `${COLLECTION}/restorePoints/%2E%2E`, "restorePointName", NAME),
  ...place("two bare dots", `${COLLECTION}/restorePoints/..`, "restorePointName", NAME),
  ...place("an empty point's name", `${COLLECTION}/restorePoints/`, null, NAME),
  ...place("an empty collection's name", `${COMPUTE}/restorePointCollections//restorePoints/rp1`, null, NAME),
  ...place(
    "an empty group's name",
    `/subscriptions/${SUBSCRIPTION}/resourceGroups//providers/Microsoft.Compute/disks/d`,
    null,
    NAME,
  ),
  ...place("a collection with a dot", `${COMPUTE}/restorePointCollections/a.b`, "restorePointCollectionName", NAME),
  ...place("a disk with a dot", `${COMPUTE}/disks/a.b`, "diskName", NAME),
  ...place("a VM with slashes", `${COMPUTE}/virtualMachines/..%2F..%2Fetc`, "vmName", NAME),
  ...place("81 characters", `${COMPUTE}/disks/${"a".repeat(81)}`, "diskName", NAME),
  ...place("3,000 characters", `${COMPUTE}/disks/${"a".repeat(3000)}`, "path", NAME),
  ...place("a zero byte", `${COMPUTE}/disks/a%00b`, "diskName", NAME),
  ...place("beginning with -", `${COMPUTE}/disks/-rf`, "diskName", NAME),
  ...place("a letter outside ASCII", `${COMPUTE}/disks/d%C3%A4`, "diskName", NAME),
  ...place("a broken percent escape", `${COMPUTE}/disks/%ZZ`, "path", "BadRequest"),
  ...place("a group ending in a dot", `/subscriptions/${SUBSCRIPTION}/resourceGroups/rg.`, "resourceGroupName", NAME),
  ...place(
    "a subscription that is no UUID",
    "/subscriptions/abc/resourceGroups/rg1",
    "subscriptionId",
    "InvalidSubscriptionId",
  ),
];

const PLACES: Case[] = [
  ...place("no api-version", `${DISK}?x=1`, "api-version", "MissingApiVersionParameter"),
  ...place("an empty api-version", `${DISK}?api-version=`, "api-version", "MissingApiVersionParameter"),
  ...place("an unknown api-version", `${POINT}?api-version=2018-06-30`, "api-version", NOT_REGISTERED, {
    says: /2024-07-01.*supported locations are 'local'/,
  }),
  ...place("a disk's api-version for a point", `${POINT}?api-version=2022-07-02`, "api-version", NOT_REGISTERED),
  ...place(
    "an unknown api-version of groups",
    `${GROUP}?api-version=banana`,
    "api-version",
    "InvalidApiVersionParameter",
    {
      says: /'banana' is invalid. The supported versions are '2014-04-01,/,
    },
  ),
  ...place("an unknown type", `${COMPUTE}/potatoes/p`, "potatoes", "InvalidResourceType", { status: 404 }),
  ...place("an unknown provider", `${GROUP}/providers/Contoso.Widgets/widgets/w`, "widgets", "InvalidResourceType", {
    status: 404,
  }),
  ...place("nothing at all", "/nowhere", "path", "NotFound", { status: 404 }),
  ...request("PATCH", POINT, [
    ["a verb the type has not", {}, null, "MethodNotAllowed", { status: 405, says: /It supports GET, PUT, DELETE/ }],
  ]),
  ...request("GET", `${COMPUTE}/restorePointCollections?api-version=2024-07-01&$skiptoken=***`, [
    ["a skip token of somebody else", undefined, "$skiptoken"],
  ]),
];

const BODIES: Case[] = [
  ...request("PUT", POINT, [
    ["not JSON", "{properties: 1}", "body", CONTENT, { says: /could not be deserialized/ }],
    ["cut short", '{"properties":', "body", CONTENT],
    ["empty", "", "body", CONTENT],
    ["a list", [], "body", CONTENT],
    ["null", "null", "body", CONTENT],
    ["a number", "7", "body", CONTENT],
    ["nested 100,000 levels deep", deep(100_000), "body", CONTENT, { says: /nested deeper than 64/ }],
    ["more than 1 MiB", { a: "x".repeat(MIB) }, "body", "RequestEntityTooLarge", { status: 413 }],
    ["just below 1 MiB in an unknown member", { a: "x".repeat(MIB - 100) }, "a", CONTENT],
    ["just below 1 MiB of disks", properties({ excludeDisks: many(7000, { id: DISK }) }), "properties.excludeDisks"],
    ["an unknown member", { propertys: {} }, "propertys", CONTENT],
    ["__proto__ as a member", '{"__proto__":{"properties":{}}}', "__proto__", CONTENT],
    ["constructor as a member", '{"properties":{"constructor":{}}}', "properties.constructor", CONTENT],
  ]),
  ...request("PUT", VM, [
    [
      "an unknown member deep inside",
      data({ managedDisk: { id: DISK, size: 3 } }),
      "properties.storageProfile.dataDisks[0].managedDisk.size",
      CONTENT,
    ],
  ]),
  ...request("PUT", GROUP, [
    ["a member in two spellings", '{"location":"a","LOCATION":"b"}', "location", undefined, { says: /given twice/ }],
    ["no location", {}, "location"],
    ["a location that is a number", { location: 3 }, "location"],
    ["51 tags", { location: "local", tags: Object.fromEntries(many(51, "").map((_, i) => [`t${i}`, ""])) }, "tags"],
    ["a tag that is a number", { location: "local", tags: { a: 1 } }, "tags.a"],
    ["a tag's value of 257 characters", { location: "local", tags: { a: "x".repeat(257) } }, "tags.a"],
  ]),
];

const SOURCE = "properties.creationData.source";
const DISKS: Case[] = [
  ...request("PUT", DISK, [
    ["no properties", { location: "local" }, "properties"],
    ["no creationData", located({}), "properties.creationData"],
    [
      "createOption Copy",
      creation("Copy"),
      "properties.creationData.createOption",
      undefined,
      { says: /Empty, Import, Restore/ },
    ],
    ["createOption Attach", creation("Attach"), "properties.creationData.createOption"],
    ["Restore without a source", creation("Restore"), `${SOURCE}ResourceId`],
    [
      "Restore from a disk",
      creation("Restore", { sourceResourceId: DISK }),
      `${SOURCE}ResourceId`,
      REFERENCE,
      { says: /diskRestorePoints/ },
    ],
    [
      "Import from a web address",
      creation("Import", { sourceUri: "https://x.example/d" }),
      `${SOURCE}Uri`,
      undefined,
      { says: /pool:/ },
    ],
    ["Import from a file", creation("Import", { sourceUri: "file:///etc/shadow" }), `${SOURCE}Uri`],
    [
      "Import with a source id",
      creation("Import", { sourceUri: "pool://a/b/c", sourceResourceId: DISK }),
      `${SOURCE}ResourceId`,
    ],
    ["Empty with a source", creation("Empty", { sourceUri: "pool://a/b/c" }), `${SOURCE}Uri`],
    ["a sku without a name", disk({}, { sku: {} }), "sku.name"],
    ["zones", disk({}, { zones: ["1"] }), "zones"],
    [
      "a customer's key",
      disk({ encryption: { diskEncryptionSetId: "/x" } }),
      "properties.encryption.diskEncryptionSetId",
    ],
    ["an unknown osType", disk({ osType: "BeOS" }), "properties.osType"],
    ["a shared disk", disk({ maxShares: 2 }), "properties.maxShares"],
    ...[0, -1, 1.5, "abc", "1e3", 65_537, 1e300, true].map(
      (diskSizeGB): Row => [
        `a size of ${diskSizeGB}`,
        disk({ diskSizeGB }),
        "properties.diskSizeGB",
        undefined,
        { says: /1 to 65536/ },
      ],
    ),
  ]),
  ...request("PATCH", DISK, [
    ["a change of the source", properties({ creationData: {} }), "properties.creationData", CONTENT],
  ]),
];

const STORAGE = "properties.storageProfile";
const HYPERVISOR = `${VM}/providers/Stillpoint.Hypervisor`;
const machine = (more: object) => properties({ machineType: "q35", firmware: "bios", ...more });
const MACHINES: Case[] = [
  ...request("PUT", VM, [
    ["an image", vm({ imageReference: { publisher: "x" } }), `${STORAGE}.imageReference`],
    [
      "an OS disk from an image",
      vm({ osDisk: attach({ osType: "Linux", createOption: "FromImage" }) }),
      `${STORAGE}.osDisk.createOption`,
    ],
    ["no OS disk", vm({ osDisk: undefined }), `${STORAGE}.osDisk`],
    [
      "an id that is none",
      vm({ osDisk: attach({ osType: "Linux", managedDisk: { id: "d1" } }) }),
      `${STORAGE}.osDisk.managedDisk.id`,
      REFERENCE,
    ],
    ["lun 64", data({ lun: 64 }), `${STORAGE}.dataDisks[0].lun`],
    ["data disks that are no list", vm({ dataDisks: {} }), `${STORAGE}.dataDisks`],
    ["65 data disks", vm({ dataDisks: many(65, attach({ lun: 0 })) }), `${STORAGE}.dataDisks`],
    ["a disk to be deleted with the VM", data({ deleteOption: "Delete" }), `${STORAGE}.dataDisks[0].deleteOption`],
    ["an unknown caching", data({ caching: "Fast" }), `${STORAGE}.dataDisks[0].caching`],
    ["no size", vm({}, { hardwareProfile: {} }), "properties.hardwareProfile.vmSize"],
  ]),
  ...request("POST", `${HYPERVISOR}/import`, [
    ["an import without a socket", located({}), "properties.qmpSocket"],
    ["an import over a network socket", located({ qmpSocket: "tcp:host:1" }), "properties.qmpSocket"],
  ]),
  ...request("PUT", `${HYPERVISOR}/machines/default`, [
    ["a multicast MAC", machine({ nics: [{ mac: "01:00:5e:00:00:01" }] }), "properties.nics[0].mac"],
    [
      "a serial that is a list of options",
      machine({ disks: { [DISK]: { bus: "virtio-blk", serial: "a,readonly=on" } } }),
      `properties.disks.${DISK}.serial`,
    ],
    ["a machine type of QEMU's", machine({ machineType: "microvm" }), "properties.machineType"],
    [
      "a disk's key that is no id",
      machine({ disks: { d1: { bus: "virtio-blk", serial: "a" } } }),
      "properties.disks.d1",
      REFERENCE,
    ],
  ]),
];

const restore = (more: object) => properties({ targetResourceGroup: "rg1", ...more });
const POINTS: Case[] = [
  ...request("PUT", COLLECTION, [
    [
      "a source that is a disk",
      located({ source: { id: DISK } }),
      "properties.source.id",
      REFERENCE,
      { says: /not the id of a .*virtualMachines/ },
    ],
    ["a source that is a collection", located({ source: { id: `${COLLECTION}2` } }), "properties.source.id", REFERENCE],
    ["a source that is a URL", located({ source: { id: "https://x/y" } }), "properties.source.id", REFERENCE],
    ["a source of dots", located({ source: { id: `${COMPUTE}/virtualMachines/..` } }), "properties.source.id", NAME],
    ["no source", located({}), "properties.source"],
    ["a source without an id", located({ source: {} }), "properties.source.id"],
    ["instant access", located({ source: { id: VM }, instantAccess: true }), "properties.instantAccess"],
  ]),
  ...request("PUT", POINT, [
    [
      "an unknown mode",
      properties({ consistencyMode: "Perfect" }),
      "properties.consistencyMode",
      undefined,
      { says: /CrashConsistent, File/ },
    ],
    ["excluded disks that are texts", properties({ excludeDisks: [DISK] }), "properties.excludeDisks[0]"],
    [
      "an excluded VM",
      properties({ excludeDisks: [{ id: DISK }, { id: VM }] }),
      "properties.excludeDisks[1].id",
      REFERENCE,
    ],
    ["excluded disks that are no list", properties({ excludeDisks: { id: DISK } }), "properties.excludeDisks"],
    ["a copy", properties({ sourceRestorePoint: { id: POINT } }), "properties.sourceRestorePoint"],
  ]),
  ...request("POST", `${POINT}/providers/Stillpoint.Restore/restores`, [
    ["a restore without a group", properties({}), "properties.targetResourceGroup"],
    [
      "a restore into a group with a slash",
      restore({ targetResourceGroup: "a/b" }),
      "properties.targetResourceGroup",
      NAME,
    ],
    ["a restored VM with a dot", restore({ vmName: "a.b" }), "properties.vmName", NAME],
    ["a new disk with a slash", restore({ diskNames: { [DISK]: "../x" } }), `properties.diskNames.${DISK}`, NAME],
    ["start that is no truth value", restore({ start: 1 }), "properties.start"],
  ]),
  ...request("POST", `${POINT}/providers/Stillpoint.Restore/restores?api-version=2024-07-01`, [
    ["an api-version of Compute for our own", restore({}), "api-version", NOT_REGISTERED],
  ]),
];

export const CASES = { names: NAMES, places: PLACES, bodies: BODIES, disks: DISKS, machines: MACHINES, points: POINTS };
