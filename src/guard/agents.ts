import { StillpointError } from "../base/index.ts";
import { connectAgent, type GuestAgent } from "../hypervisors/agent/index.ts";
import { AGENT_CHARDEV, readAgentChannel } from "../hypervisors/qemu/index.ts";
import type { GuardOptions } from "./context.ts";
import type { Machine } from "./machine.ts";
import { createMutex, type Mutex } from "./mutex.ts";
import type { VmFacts } from "./protocol.ts";

const SYNC_MS = 3_000;
const mutexes = new WeakMap<Machine, Mutex>();

/** The channel takes one client at a time; a second one would wait without a word. */
function exclusively(machine: Machine): Mutex {
  const known = mutexes.get(machine);
  if (known) return known;
  const mutex = createMutex();
  mutexes.set(machine, mutex);
  return mutex;
}

/** Runs `work` with the VM's agent, synchronised. Throws VMAgentStatusCommunicationError when it does not answer. */
export function withAgent<T>(
  machine: Machine,
  options: GuardOptions,
  work: (agent: GuestAgent) => Promise<T>,
  syncMs = SYNC_MS,
): Promise<T> {
  return exclusively(machine)(async () => {
    const path = machine.place.agentSocket;
    if (path === null || !(await channelOpen(machine)))
      throw new StillpointError(
        "VMAgentStatusCommunicationError",
        "No guest agent is running in the virtual machine.",
        {
          remedy: "Install and start qemu-guest-agent in the guest.",
        },
      );
    const agent = await connectAgent({ path, random: options.random, clock: options.clock, timeoutMs: syncMs });
    try {
      return await work(agent);
    } finally {
      agent.close();
    }
  });
}

/** What is sent before the guest has opened its end piles up; so ask QEMU first. Unknown to QEMU counts as open. */
async function channelOpen(machine: Machine): Promise<boolean> {
  const path = machine.place.agentSocket;
  const open = await readAgentChannel(machine.qmp(), (channel) =>
    machine.place.kind === "own"
      ? channel["label"] === AGENT_CHARDEV
      : String(channel["filename"]).split(/[:,]/).includes(String(path)),
  );
  return open ?? true;
}

/** `connected`, `silent` or `absent`, within about 3 s. */
export async function agentState(machine: Machine, options: GuardOptions): Promise<VmFacts["agent"]> {
  if (machine.place.agentSocket === null || !(await channelOpen(machine))) return "absent";
  return withAgent(machine, options, async () => "connected" as const).catch(() => "silent" as const);
}
