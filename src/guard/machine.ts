import { StillpointError, type VmUid } from "../base/index.ts";
import { jsonList, jsonObject, readStatus } from "../hypervisors/qemu/index.ts";
import { connectQmp, type QmpClient, type QmpEvent } from "../hypervisors/qmp/index.ts";
import type { Announce, GuardOptions } from "./context.ts";
import { createMutex, type Mutex } from "./mutex.ts";
import type { Incarnation, ProcessState, VmState } from "./protocol.ts";

/** Where a QEMU is found. */
export interface MachinePlace {
  readonly vm: VmUid;
  readonly kind: "own" | "adopted";
  readonly qmpSocket: string;
  readonly agentSocket: string | null;
  /** The pid of the live process; null when there is none. An adopted QEMU's pid is unknown: undefined. */
  findPid(): Promise<number | null | undefined>;
}

/** What a machine tells the captures. Called in the middle of reading: must not throw or wait. */
export interface MachineListener {
  event(vm: VmUid, event: QmpEvent): void;
  /** The monitor is connected again or for the first time. */
  up(vm: VmUid, incarnation: Incarnation): void;
  /** The process is certainly gone. */
  gone(vm: VmUid, reason: string): void;
}

/** One QEMU under guard: its monitor connection, held and mended, and what is known of it. */
export interface Machine {
  readonly place: MachinePlace;
  /** Held by whoever changes the run state or takes a point in time. */
  readonly exclusively: Mutex;
  /** The monitor; throws HypervisorUnavailable when the process is down or silent. */
  qmp(): QmpClient;
  state(): VmState;
  /** Connects unless connected. Rejects with HypervisorUnavailable. */
  connect(): Promise<QmpClient>;
  /** Asks for the run state and announces a change. */
  refresh(): Promise<string>;
  /** Looks at the process and the monitor now: connects, or finds out that it is gone. Never rejects. */
  look(): Promise<void>;
  set(changes: { readonly reason?: string | null; readonly quitting?: boolean }): void;
  /** Lets the monitor go and stops looking. */
  dispose(): void;
}

const LOOK_MS = 1_000;
const ROUNDS_A_BEAT = 5;
const BEAT_MS = 5_000;
const MARK = /^sp-inc-[0-9a-f]{32}$/;
const STATUS_EVENTS = new Set(["STOP", "RESUME", "SHUTDOWN", "RESET", "SUSPEND", "WAKEUP", "GUEST_PANICKED"]);

export function createMachine(
  place: MachinePlace,
  options: GuardOptions,
  announce: Announce,
  listener: MachineListener,
): Machine {
  const { vm, kind } = place;
  let client: QmpClient | null = null;
  let connecting: Promise<QmpClient> | null = null;
  let incarnation: Incarnation | null = null;
  let process_: ProcessState = "down";
  let pid: number | null = null;
  let status: string | null = null;
  let reason: string | null = null;
  let quitting = false;
  let announced = "";
  let toldGone = false;
  const disposed = new AbortController();

  function state(): VmState {
    return { vm, kind, process: process_, status, incarnation, pid, reason, quitting };
  }

  function changed(): void {
    const now = state();
    const text = JSON.stringify(now);
    if (text === announced) return;
    announced = text;
    announce.vm(now);
  }

  function onEvent(event: QmpEvent): void {
    if (event.event === "BLOCK_IO_ERROR" && event.data["action"] === "stop")
      reason = `io-error on ${String(event.data["node-name"] || event.data["device"]).slice(0, 64)}`;
    if (event.event === "SHUTDOWN") reason = event.data["guest"] === true ? "guest-shutdown" : reason;
    if (event.event === "RESUME") reason = null;
    listener.event(vm, event);
    if (STATUS_EVENTS.has(event.event)) refresh().catch(() => {});
  }

  async function open(): Promise<QmpClient> {
    const opened = await connectQmp({ path: place.qmpSocket, onEvent });
    try {
      const mark = await markIncarnation(opened, options);
      if (incarnation !== null && incarnation !== mark) listener.gone(vm, "QEMU was started anew");
      const found = await readStatus(opened);
      if (disposed.signal.aborted) throw away("is not guarded any more");
      [incarnation, status, client, process_] = [mark, found.status, opened, "up"];
      pid = (await place.findPid()) ?? null;
      toldGone = false;
      reason ??= whyOff(kind, found.status);
    } catch (error) {
      opened.close();
      throw error;
    }
    opened.closed.then(() => lost(opened));
    changed();
    listener.up(vm, incarnation);
    return opened;
  }

  function connect(): Promise<QmpClient> {
    if (client) return Promise.resolve(client);
    connecting ??= open().finally(() => {
      connecting = null;
    });
    return connecting;
  }

  function lost(which: QmpClient): void {
    if (client !== which) return;
    client = null;
    process_ = "unreachable";
    if (!disposed.signal.aborted) void look();
  }

  async function look(): Promise<void> {
    if (client || disposed.signal.aborted) return;
    const found = await place.findPid();
    if (found === null) return gone("QEMU has ended");
    pid = found ?? null;
    try {
      await connect();
    } catch (error) {
      // An adopted QEMU has no pid we know: a socket that nobody listens on is its end.
      if (found === undefined && refused(error)) return gone("QEMU has ended");
      process_ = "unreachable";
      changed();
    }
  }

  function gone(why: string): void {
    if (client) return;
    if (toldGone) return;
    toldGone = true;
    if (incarnation !== null) reason ??= why;
    [process_, status, pid, incarnation] = ["down", null, null, null];
    changed();
    listener.gone(vm, reason ?? why);
  }

  async function refresh(): Promise<string> {
    const found = await readStatus(qmp());
    status = found.status;
    changed();
    return status;
  }

  function qmp(): QmpClient {
    if (client) return client;
    throw away(process_ === "down" ? "is down" : "does not answer");
  }

  function away(why: string): StillpointError {
    return new StillpointError("HypervisorUnavailable", `The QEMU of virtual machine ${vm} ${why}.`);
  }

  /** A QEMU that hangs on its storage keeps its monitor open and answers nothing. */
  async function beat(): Promise<void> {
    if (!client) return;
    const answers = await client.execute("query-status", {}, BEAT_MS).then(
      () => true,
      () => false,
    );
    if (!client || disposed.signal.aborted) return;
    process_ = answers ? "up" : "unreachable";
    changed();
  }

  async function supervise(): Promise<void> {
    for (let round = 0; !disposed.signal.aborted; round++) {
      await look();
      if (round % ROUNDS_A_BEAT === 0) await beat();
      await options.clock.sleep(LOOK_MS, disposed.signal).catch(() => {});
    }
  }
  void supervise();

  return {
    place,
    exclusively: createMutex(),
    qmp,
    state,
    connect,
    refresh,
    look,
    set: (changes) => {
      if (changes.reason !== undefined) reason = changes.reason;
      if (changes.quitting !== undefined) quitting = changes.quitting;
      changed();
    },
    dispose: () => {
      disposed.abort();
      client?.close();
      client = null;
    },
  };
}

/** The mark of this process's life: found again, or made. A throttle group does nothing until a disk joins it. */
async function markIncarnation(qmp: QmpClient, options: GuardOptions): Promise<Incarnation> {
  const objects = jsonList(await qmp.execute("qom-list", { path: "/objects" }));
  const found = objects.find((entry) => entry["type"] === "child<throttle-group>" && MARK.test(String(entry["name"])));
  if (found) return String(found["name"]).slice("sp-inc-".length) as Incarnation;
  const id = options.random.bytes(16).toString("hex");
  await qmp.execute("object-add", { "qom-type": "throttle-group", id: `sp-inc-${id}` });
  return id as Incarnation;
}

/** Takes the mark away (an adopted QEMU that is let go). */
export async function unmarkIncarnation(qmp: QmpClient): Promise<void> {
  for (const entry of jsonList(await qmp.execute("qom-list", { path: "/objects" })).map(jsonObject))
    if (MARK.test(String(entry["name"]))) await qmp.execute("object-del", { id: String(entry["name"]) });
}

/** What a stopped own machine shows to a guard that has just been started. */
function whyOff(kind: "own" | "adopted", status: string): string | null {
  if (status === "shutdown") return "guest-shutdown";
  return status === "prelaunch" && kind === "own" ? "powered-off" : null;
}

function refused(error: unknown): boolean {
  const code = ((error as StillpointError).cause as NodeJS.ErrnoException | undefined)?.code;
  return code === "ECONNREFUSED" || code === "ENOENT";
}
