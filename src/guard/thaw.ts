import type { VmUid } from "../base/index.ts";
import type { GuestAgent } from "../hypervisors/agent/index.ts";
import { withAgent } from "./agents.ts";
import type { CaptureTools } from "./entries.ts";
import type { Machine } from "./machine.ts";

const THAW_MS = 5_000;

/**
 * Thaws with an agent at hand; resolves with how many file systems thawed, 0 when the agent did not confirm. Only a
 * confirmed thaw is noted: without one {@link thawAll} keeps trying.
 */
export async function thawNow(tools: CaptureTools, machine: Machine, agent: GuestAgent): Promise<number> {
  try {
    const count = await agent.thaw(THAW_MS);
    await tools.book.noteAnyway({ t: "thawed", vm: machine.place.vm });
    return count;
  } catch (error) {
    tools.repeated(machine.place.vm, "a thaw was not confirmed; trying again", error);
    return 0;
  }
}

/** Thaws every guest that may be frozen and that nobody is freezing right now. Called once a second and at start. */
export async function thawAll(tools: CaptureTools): Promise<void> {
  await Promise.all([...tools.book.ledger().frozen].map((vm) => thawLeftOver(tools, vm)));
}

async function thawLeftOver(tools: CaptureTools, vm: VmUid): Promise<void> {
  const { machines, book, options } = tools;
  const machine = machines.find(vm);
  if (!machine || machine.state().process === "down") return book.noteAnyway({ t: "thawed", vm });
  if (machine.state().process !== "up") return;
  await withAgent(machine, options, async (agent) => {
    if (!book.ledger().frozen.has(vm)) return;
    const count = await thawNow(tools, machine, agent);
    options.log.warn({ vm, filesystems: count }, "thawed a guest that was left frozen");
  }).catch((error) => tools.repeated(vm, "a guest may be frozen and its agent does not answer", error));
}
