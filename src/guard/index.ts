import { guardSocketPath } from "./client.ts";
import type { GuardOptions } from "./context.ts";
import { createEventLog } from "./events.ts";
import { createGuardCore } from "./guard.ts";
import { serveGuard } from "./server.ts";

export { SPACE_RULE } from "./space.ts";

export interface RunningGuard {
  readonly socket: string;
  /** Ends the guard. QEMUs and guests stay as they are. */
  close(): Promise<void>;
}

/** A whole guard. It listens only after every VM was looked for and every left-over was taken up. */
export async function runGuard(options: GuardOptions): Promise<RunningGuard> {
  const events = createEventLog(options.random.bytes(8).toString("hex"));
  const core = await createGuardCore(options, {
    vm: (state) => events.add({ kind: "vm", vm: state.vm, state }),
    capture: (state) => events.add({ kind: "capture", vm: state.vm, state }),
  });
  const socket = guardSocketPath(options.dataDir);
  const server = await serveGuard({ path: socket, core, events, log: options.log }).catch(async (error) => {
    await core.close();
    throw error;
  });
  return {
    socket,
    close: async () => {
      await server.close();
      await core.close();
    },
  };
}
