import assert from "node:assert/strict";
import { test } from "node:test";
import { openCatalog } from "../../catalog/index.ts";
import { furnish, startService, takePoint } from "../../../test/faults/domainSite.ts";
import { World } from "../../../test/faults/domainWorld.ts";

test("a point of a running VM succeeds and is in the journal", async () => {
  const world = new World();
  const catalog = await openCatalog(":memory:");
  const domain = startService(world, catalog);
  await domain.recover();
  await furnish(domain);
  const p = await takePoint(domain, "p1");
  assert.equal(p.state, "Succeeded");
  console.log(world.journal.map((e) => e.kind), world.captures.size);
  await domain.close();
  await catalog.close();
});
