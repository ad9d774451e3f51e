import type { Domain } from "../domain/index.ts";
import { operationRoutes } from "./arm/operations.ts";
import type { Route } from "./arm/routes.ts";
import { machineRoutes } from "./extensions/machines.ts";
import { recordRoutes } from "./extensions/records.ts";
import { restoreRoutes } from "./extensions/restores.ts";
import { diskRestorePointRoutes } from "./resources/diskRestorePoints.ts";
import { diskRoutes } from "./resources/disks.ts";
import { groupRoutes } from "./resources/resourceGroups.ts";
import { collectionRoutes } from "./resources/restorePointCollections.ts";
import { pointRoutes } from "./resources/restorePoints.ts";
import { resultOf } from "./resources/results.ts";
import { subscriptionRoutes } from "./resources/subscriptions.ts";
import { vmRoutes } from "./resources/virtualMachines.ts";

/** Everything the API answers to. */
export function allRoutes(domain: Domain): Route[] {
  return [
    ...subscriptionRoutes(domain),
    ...groupRoutes(domain),
    ...diskRoutes(domain),
    ...vmRoutes(domain),
    ...collectionRoutes(domain),
    ...pointRoutes(domain),
    ...diskRestorePointRoutes(domain),
    ...recordRoutes(domain),
    ...machineRoutes(domain),
    ...restoreRoutes(domain),
    ...operationRoutes(domain, resultOf(domain)),
  ];
}
