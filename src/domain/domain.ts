import { StillpointError } from "../base/index.ts";
import type { Domain, DomainHealth } from "./commands.ts";
import type { Context, DomainDeps } from "./context.ts";
import { diskCreate, putDisk } from "./disks/create.ts";
import { getDisk } from "./disks/read.ts";
import { deleteDisk, diskDelete } from "./disks/remove.ts";
import { diskUpdate, updateDisk } from "./disks/update.ts";
import { deleteGroup, getGroup, listGroups, listResources, putGroup } from "./groups/groups.ts";
import { createJournalWriter } from "./journal/writer.ts";
import { importVm, vmImport } from "./machines/adopt.ts";
import { deallocateVm, powerOffVm, startVm, vmDeallocate, vmPowerOff, vmStart } from "./machines/power.ts";
import { putVm, vmPut } from "./machines/put.ts";
import { getMachine, needVm, powerOf, putMachine } from "./machines/read.ts";
import { deleteVm, releaseVm, vmDelete, vmRelease } from "./machines/remove.ts";
import { createKeyedLock } from "./operations/locks.ts";
import { type Performers, performWith } from "./operations/perform.ts";
import { createTasks } from "./operations/tasks.ts";
import {
  collectionDelete,
  deleteCollection,
  needCollection,
  putCollection,
  updateCollectionTags,
} from "./points/collections.ts";
import { finishCommits } from "./points/commit.ts";
import { createPoint } from "./points/create.ts";
import { getDiskRestorePoint, getPoint, listPoints } from "./points/read.ts";
import { abandonPoint, deletePoint, pointDelete } from "./points/remove.ts";
import { recover } from "./recover.ts";
import { restore, restoreWork } from "./restores/restore.ts";

/** How long a stopping service waits for work to reach a place where it can be left. */
const CLOSE_TIMEOUT_MS = 10_000;

const PERFORMERS: Performers = {
  "point-delete": pointDelete,
  "collection-delete": collectionDelete,
  "disk-create": diskCreate,
  "disk-update": diskUpdate,
  "disk-delete": diskDelete,
  "vm-put": vmPut,
  "vm-start": vmStart,
  "vm-power-off": vmPowerOff,
  "vm-deallocate": vmDeallocate,
  "vm-delete": vmDelete,
  "vm-import": vmImport,
  "vm-release": vmRelease,
  restore: restoreWork,
};

/** The domain over its ports. Call `recover` once before the first command. */
export function createDomain(deps: DomainDeps): Domain {
  const ctx: Context = {
    ...deps,
    writer: createJournalWriter({ ...deps, finishCommits: (tx) => finishCommits(deps.clock, tx) }),
    tasks: createTasks(deps.clock, deps.log),
    vmLock: createKeyedLock(),
    progress: new Map(),
    perform: performWith(() => ctx, PERFORMERS),
  };
  return {
    recover: () => recover(ctx),
    close: () => ctx.tasks.close(CLOSE_TIMEOUT_MS),
    health: () => health(ctx),
    ...groupsAndDisks(ctx),
    ...machines(ctx),
    ...points(ctx),
    restore: (command) => restore(ctx, command),
    getOperation: async (id) => {
      const operation = await ctx.catalog.read((tx) => tx.operation(id));
      if (!operation) throw new StillpointError("NotFound", `There is no operation '${id}'.`);
      const percent = operation.status === "InProgress" ? ctx.progress.get(id) : undefined;
      return percent === undefined ? operation : { ...operation, percent };
    },
  };
}

function health(ctx: Context): DomainHealth {
  const error = ctx.writer.readOnly();
  if (!error) return { readOnly: null, alarms: [] };
  return { readOnly: { code: error.code, message: error.message }, alarms: [error.message] };
}

function groupsAndDisks(ctx: Context) {
  return {
    putGroup: (command) => putGroup(ctx, command),
    getGroup: (id) => getGroup(ctx, id),
    listGroups: (subscription, page) => listGroups(ctx, subscription, page),
    deleteGroup: (id) => deleteGroup(ctx, id),
    listSubscriptions: () => ctx.catalog.read((tx) => tx.subscriptions()),
    putDisk: (command) => putDisk(ctx, command),
    updateDisk: (id, change) => updateDisk(ctx, id, change),
    getDisk: (id) => getDisk(ctx, id),
    listDisks: (scope, page) => listResources(ctx, "disk", scope, page),
    deleteDisk: (id) => deleteDisk(ctx, id),
  } satisfies Partial<Domain>;
}

function machines(ctx: Context) {
  return {
    putVm: (command) => putVm(ctx, command),
    importVm: (command) => importVm(ctx, command),
    releaseVm: (id) => releaseVm(ctx, id),
    getVm: (id) => ctx.catalog.read((tx) => needVm(tx, id)),
    vmPower: (vm) => powerOf(ctx, vm),
    listVms: (scope, page) => listResources(ctx, "vm", scope, page),
    startVm: (id) => startVm(ctx, id),
    powerOffVm: (id, skipShutdown) => powerOffVm(ctx, id, skipShutdown),
    deallocateVm: (id) => deallocateVm(ctx, id),
    deleteVm: (id) => deleteVm(ctx, id),
    getMachine: (vmId) => getMachine(ctx, vmId),
    putMachine: (vmId, machine) => putMachine(ctx, vmId, machine),
  } satisfies Partial<Domain>;
}

function points(ctx: Context) {
  return {
    putCollection: (command) => putCollection(ctx, command),
    updateCollectionTags: (id, tags) => updateCollectionTags(ctx, id, tags),
    getCollection: (id) => ctx.catalog.read((tx) => needCollection(tx, id)),
    listCollections: (scope, page) => listResources(ctx, "collection", scope, page),
    deleteCollection: (id) => deleteCollection(ctx, id),
    createPoint: (command) => createPoint(ctx, command),
    getPoint: (id) => getPoint(ctx, id),
    listPoints: (collectionId, page) => listPoints(ctx, collectionId, page),
    deletePoint: (id) => deletePoint(ctx, id),
    abandonPoint: (id) => abandonPoint(ctx, id),
    getDiskRestorePoint: (pointId, name) => getDiskRestorePoint(ctx, pointId, name),
  } satisfies Partial<Domain>;
}
