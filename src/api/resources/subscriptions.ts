import { StillpointError } from "../../base/index.ts";
import type { Domain } from "../../domain/index.ts";
import { ok, type Route } from "../arm/routes.ts";

const body = (id: string) => ({
  id: `/subscriptions/${id}`,
  subscriptionId: id,
  displayName: id,
  state: "Enabled",
});

export function subscriptionRoutes(domain: Domain): Route[] {
  return [
    {
      method: "GET",
      template: "/subscriptions",
      type: "subscriptions",
      families: ["resources"],
      handle: async () => ok({ value: (await domain.listSubscriptions()).map(body) }),
    },
    {
      method: "GET",
      template: "/subscriptions/{subscription}",
      type: "subscriptions",
      families: ["resources"],
      handle: async ({ parameters }) => {
        const wanted = parameters["subscription"]?.toLowerCase();
        const found = (await domain.listSubscriptions()).find((id) => id.toLowerCase() === wanted);
        if (found === undefined)
          throw new StillpointError("SubscriptionNotFound", `The subscription '${wanted}' could not be found.`, {
            target: "subscriptionId",
          });
        return ok(body(found));
      },
    },
  ];
}
