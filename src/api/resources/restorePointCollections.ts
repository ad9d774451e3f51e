import type { ResourceId } from "../../base/index.ts";
import type { Domain, RestorePoint, RestorePointCollection } from "../../domain/index.ts";
import { armBoolean, armObject, locationSchema, parseBody, readOnly, tagsSchema, text } from "../arm/body.ts";
import { fill, GROUP, reference, SUBSCRIPTION } from "../arm/ids.ts";
import { all, pageBody, pageOptions } from "../arm/paging.ts";
import { type ArmRequest, accepted, deleted, ok, type Route } from "../arm/routes.ts";
import { provisioningState } from "./common.ts";
import { pointBody } from "./restorePoints.ts";

const COLLECTION_TEMPLATE = `${GROUP}/providers/Microsoft.Compute/restorePointCollections/{collection}`;

const properties = {
  instantAccess: armBoolean
    .optional()
    .refine((value) => value !== true, { error: "instant access is not offered by this version" }),
  provisioningState: readOnly,
  restorePointCollectionId: readOnly,
  restorePoints: readOnly,
} as const;
const source = armObject({ id: text(2048), location: readOnly });
const own = { id: readOnly, name: readOnly, type: readOnly } as const;

const putSchema = armObject({
  location: locationSchema,
  tags: tagsSchema.optional(),
  properties: armObject({ ...properties, source }),
  ...own,
});

/** "When updating, only tags may be modified"; what a client sends back unchanged does no harm. */
const patchSchema = armObject({
  location: readOnly,
  tags: tagsSchema.optional(),
  properties: armObject({ ...properties, source: readOnly }).optional(),
  ...own,
});

function collectionBody(
  collection: RestorePointCollection,
  version: string,
  points?: readonly RestorePoint[],
): unknown {
  return {
    name: collection.name,
    id: collection.id,
    type: "Microsoft.Compute/restorePointCollections",
    location: collection.location,
    tags: collection.tags,
    properties: {
      source: collection.source,
      provisioningState: provisioningState(collection),
      restorePointCollectionId: collection.uid,
      ...(points === undefined ? {} : { restorePoints: points.map((point) => pointBody(point, version)) }),
    },
  };
}

export function collectionRoutes(domain: Domain): Route[] {
  const type = "restorePointCollections";
  const families = ["compute"] as const;
  const idOf = (request: ArmRequest) => fill(COLLECTION_TEMPLATE, request.parameters);
  const list = (scope: string): Route => ({
    method: "GET",
    template: `${scope}/providers/Microsoft.Compute/restorePointCollections`,
    type,
    families,
    handle: async (request) => {
      const page = await domain.listCollections(fill(scope, request.parameters), pageOptions(request));
      const bodies = page.value.map((collection) => collectionBody(collection, request.apiVersion));
      return ok(pageBody(request, bodies, page.next));
    },
  });
  const get = async (request: ArmRequest) => {
    const collection = await domain.getCollection(idOf(request));
    const expand = request.query("$expand")?.toLowerCase() === "restorepoints";
    const points = expand ? await all((page) => domain.listPoints(collection.id, page)) : undefined;
    return ok(collectionBody(collection, request.apiVersion, points));
  };
  const put = async (request: ArmRequest) => {
    const body = parseBody(putSchema, request.body);
    const sourceId: ResourceId = reference(
      "Microsoft.Compute/virtualMachines",
      body.properties.source.id,
      "properties.source.id",
    );
    const result = await domain.putCollection({
      id: idOf(request),
      location: body.location,
      tags: body.tags ?? {},
      sourceId,
    });
    const status = result.created ? 201 : 200;
    return accepted(result, collectionBody(result.resource, request.apiVersion), { done: status, running: status });
  };
  const patch = async (request: ArmRequest) => {
    const { tags } = parseBody(patchSchema, request.body);
    const id = idOf(request);
    const collection =
      tags === undefined ? await domain.getCollection(id) : await domain.updateCollectionTags(id, tags);
    return ok(collectionBody(collection, request.apiVersion));
  };
  return [
    list(SUBSCRIPTION),
    list(GROUP),
    { method: "GET", template: COLLECTION_TEMPLATE, type, families, handle: get },
    { method: "PUT", template: COLLECTION_TEMPLATE, type, families, handle: put },
    { method: "PATCH", template: COLLECTION_TEMPLATE, type, families, handle: patch },
    {
      method: "DELETE",
      template: COLLECTION_TEMPLATE,
      type,
      families,
      handle: async (request) => deleted(await domain.deleteCollection(idOf(request))),
    },
  ];
}
