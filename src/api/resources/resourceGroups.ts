import type { Domain, ResourceGroup } from "../../domain/index.ts";
import { armObject, locationSchema, parseBody, readOnly, tagsSchema, text } from "../arm/body.ts";
import { fill, GROUP, SUBSCRIPTION } from "../arm/ids.ts";
import { pageBody, pageOptions } from "../arm/paging.ts";
import { type ArmRequest, accepted, deleted, ok, type Route } from "../arm/routes.ts";

const putSchema = armObject({
  location: locationSchema,
  tags: tagsSchema.optional(),
  managedBy: text(2048).optional(),
  id: readOnly,
  name: readOnly,
  type: readOnly,
  properties: readOnly,
});

function groupBody(group: ResourceGroup): unknown {
  return {
    id: group.id,
    name: group.name,
    type: "Microsoft.Resources/resourceGroups",
    location: group.location,
    tags: group.tags,
    properties: { provisioningState: "Succeeded" },
  };
}

export function groupRoutes(domain: Domain): Route[] {
  const type = "resourceGroups";
  const families = ["resources"] as const;
  const idOf = (request: ArmRequest) => fill(GROUP, request.parameters);
  return [
    {
      method: "GET",
      template: `${SUBSCRIPTION}/resourceGroups`,
      type,
      families,
      handle: async (request) => {
        const page = await domain.listGroups(request.parameters["subscription"] ?? "", pageOptions(request));
        return ok(pageBody(request, page.value.map(groupBody), page.next));
      },
    },
    {
      method: "GET",
      template: GROUP,
      type,
      families,
      handle: async (request) => ok(groupBody(await domain.getGroup(idOf(request)))),
    },
    {
      method: "HEAD",
      template: GROUP,
      type,
      families,
      handle: async (request) => {
        await domain.getGroup(idOf(request));
        return { status: 204 };
      },
    },
    {
      method: "PUT",
      template: GROUP,
      type,
      families,
      handle: async (request) => {
        const body = parseBody(putSchema, request.body);
        const result = await domain.putGroup({ id: idOf(request), location: body.location, tags: body.tags ?? {} });
        const done = result.created ? 201 : 200;
        return accepted(result, groupBody(result.resource), { done, running: done });
      },
    },
    {
      method: "DELETE",
      template: GROUP,
      type,
      families,
      handle: async (request) => deleted(await domain.deleteGroup(idOf(request))),
    },
  ];
}
