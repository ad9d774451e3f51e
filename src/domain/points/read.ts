import { idKey, type ResourceId, StillpointError } from "../../base/index.ts";
import type { Page, PageOptions } from "../commands.ts";
import type { Context } from "../context.ts";
import type { DiskRestorePoint, RestorePoint } from "../model.ts";
import { nameOf, notFound } from "../names.ts";
import { pageOf, pageRequest } from "../paging.ts";
import type { CatalogReads } from "../ports.ts";
import { needCollection } from "./collections.ts";

export async function getPoint(ctx: Context, id: ResourceId): Promise<RestorePoint> {
  const point = await ctx.catalog.read((tx) => needPoint(tx, id));
  return withProgress(ctx, point);
}

export async function listPoints(ctx: Context, id: ResourceId, page: PageOptions): Promise<Page<RestorePoint>> {
  return ctx.catalog.read(async (tx) => {
    await needCollection(tx, id);
    const points = await tx.points(idKey(id), pageRequest(page));
    return pageOf(
      points.map((point) => withProgress(ctx, point)),
      page,
    );
  });
}

export async function getDiskRestorePoint(
  ctx: Context,
  pointId: ResourceId,
  name: string,
): Promise<{ readonly point: RestorePoint; readonly disk: DiskRestorePoint }> {
  const point = await getPoint(ctx, pointId);
  const disk = point.disks.find((candidate) => candidate.name.toLowerCase() === name.toLowerCase());
  if (disk) return { point, disk };
  throw new StillpointError(
    "ResourceNotFound",
    `The restore point '${point.name}' has no disk restore point '${name}'.`,
  );
}

export async function needPoint(tx: CatalogReads, id: ResourceId): Promise<RestorePoint> {
  const point = await tx.point(idKey(id));
  if (!point) throw notFound("restore point", id);
  return point;
}

/** A point that bytes can be read from: Succeeded. Otherwise why not, with the percentage while it is being created. */
export async function needRestorable(ctx: Context, tx: CatalogReads, id: ResourceId): Promise<RestorePoint> {
  const point = withProgress(ctx, await needPoint(tx, id));
  switch (point.state) {
    case "Succeeded":
      return point;
    case "Creating":
    case "Committing":
      throw new StillpointError("Conflict", `The restore point '${nameOf(id)}' is ${point.percent} % copied.`, {
        remedy: "It can be restored when it has succeeded.",
      });
    case "Failed":
      throw new StillpointError("Conflict", `The restore point '${nameOf(id)}' failed: ${point.error?.message}`);
    case "Deleting":
      throw new StillpointError("Conflict", `The restore point '${nameOf(id)}' is being deleted.`);
  }
}

function withProgress(ctx: Context, point: RestorePoint): RestorePoint {
  const percent = point.state === "Creating" ? ctx.progress.get(point.operationId) : undefined;
  return percent === undefined ? point : { ...point, percent };
}
