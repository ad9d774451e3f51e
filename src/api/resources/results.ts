import type { Domain, RestoreOutput } from "../../domain/index.ts";
import type { ResultOf } from "../arm/operations.ts";
import { diskBody } from "./disks.ts";
import { pointBody } from "./restorePoints.ts";
import { vmBody } from "./virtualMachines.ts";

/** What a succeeded operation leaves: the resource it made or changed; deletes and power leave nothing. */
export function resultOf(domain: Domain): ResultOf {
  return async (operation, version) => {
    switch (operation.kind) {
      case "disk-create":
      case "disk-update":
        return diskBody(await domain.getDisk(operation.resourceId));
      case "vm-put":
      case "vm-import":
        return vmBody(await domain.getVm(operation.resourceId));
      case "point-create":
        return pointBody(await domain.getPoint(operation.resourceId), version);
      case "restore":
        return restoreBody(operation.output as RestoreOutput);
      case "point-delete":
      case "collection-delete":
      case "disk-delete":
      case "vm-start":
      case "vm-power-off":
      case "vm-deallocate":
      case "vm-delete":
      case "vm-release":
      case "group-delete":
        return undefined;
    }
  };
}

function restoreBody(output: RestoreOutput): unknown {
  return {
    disks: output.disks.map((id) => ({ id })),
    ...(output.vm === null ? {} : { virtualMachine: { id: output.vm } }),
    notRestored: output.notRestored,
  };
}
