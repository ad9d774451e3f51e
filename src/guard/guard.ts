import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { StillpointError, type VmUid } from "../base/index.ts";
import { readFacts } from "../hypervisors/qemu/index.ts";
import { adopt, adoptedPlace, release } from "./adopt.ts";
import { agentState } from "./agents.ts";
import { checkStep } from "./allowed.ts";
import { openBook } from "./book.ts";
import { captureCalls } from "./captures.ts";
import type { Announce, GuardOptions } from "./context.ts";
import { createEndings } from "./endings.ts";
import { type CaptureTools, capturesOf, needsQemu } from "./entries.ts";
import { createMachine, type Machine, type MachineListener, type MachinePlace } from "./machine.ts";
import { createMachines } from "./machines.ts";
import { createNbdServers } from "./nbd-server.ts";
import { hardOff, launch, quit, readSpec, removeRuntime, softOff, wake } from "./power.ts";
import { boundLog, findQemu, runtimePaths } from "./process.ts";
import type { GuardCalls, GuardMethod, MachineSpec, VmFacts } from "./protocol.ts";
import { createRepeated } from "./repeat.ts";
import { runStep } from "./steps.ts";
import { thawAll } from "./thaw.ts";
import { createWatch } from "./watch.ts";
import { GUARD_PROTOCOL_VERSION } from "./wire.ts";

/** The guard without its socket. */
export interface GuardCore {
  readonly calls: {
    readonly [M in GuardMethod]: (params: GuardCalls[M]["params"]) => Promise<GuardCalls[M]["result"]>;
  };
  /** Lets go of every socket. QEMUs and guests stay as they are. */
  close(): Promise<void>;
}

const TICK_MS = 1_000;
const FACTS_AGENT_NEEDS = new Set(["running"]);

/** Opens the journal, finds every VM again, thaws what was left frozen, and goes on with what was begun. */
export async function createGuardCore(options: GuardOptions, announce: Announce): Promise<GuardCore> {
  process.umask(0o077);
  await mkdir(join(options.dataDir, "vms"), { recursive: true, mode: 0o700 });
  await mkdir(options.captureDir, { recursive: true, mode: 0o700 });
  const startedAt = options.clock.now().toISOString();
  const book = await openBook(options);
  const machines = createMachines();
  const nbd = createNbdServers(options);
  const tools: CaptureTools = {
    ...{ options, book, machines, nbd, announce },
    repeated: createRepeated(options.log, options.clock),
  };
  const endings = createEndings(tools);
  const watch = createWatch(tools, endings);

  const listener: MachineListener = {
    event: watch.event,
    up: watch.recheck,
    gone: (vm, reason) => {
      endings.lose(vm, reason).catch((error) => options.log.error({ err: error, vm }, "could not note a lost VM"));
    },
  };

  const guard = (place: MachinePlace): Machine => {
    const machine = createMachine(place, options, announce, listener);
    machine.set({ quitting: book.ledger().quitting.has(place.vm) });
    machines.put(machine);
    return machine;
  };

  for (const vm of await readdir(join(options.dataDir, "vms"))) guard(ownPlace(options, vm as VmUid));
  for (const [vm, place] of book.ledger().adopted) guard(adoptedPlace(vm, place));
  await Promise.all(machines.all().map((machine) => machine.look()));

  /** An instant begun in a former life of the guard: undone by what QEMU shows. */
  const begunBefore = [...book.ledger().captures.values()].filter((entry) => entry.phase === "instant");
  async function restartedInstants(): Promise<void> {
    for (const entry of begunBefore.splice(0))
      await endings.giveUp(entry.open.capture, "the guard was restarted while the point in time was being taken");
  }

  const stopped = new AbortController();
  async function every(work: () => Promise<void>): Promise<void> {
    while (!stopped.signal.aborted) {
      await work().catch((error) => options.log.error({ err: error }, "a round of the guard failed"));
      await options.clock.sleep(TICK_MS, stopped.signal).catch(() => {});
    }
  }
  void every(watch.tick);
  void every(() => thawAll(tools));
  void every(async () => {
    await endings.resume();
    await restartedInstants();
    for (const { place } of machines.all())
      if (place.kind === "own") await boundLog(runtimePaths(options.dataDir, place.vm));
  });

  async function start(spec: MachineSpec): Promise<void> {
    const paths = runtimePaths(options.dataDir, spec.vm);
    const machine = machines.find(spec.vm) ?? guard(ownPlace(options, spec.vm));
    if (machine.place.kind === "adopted")
      throw new StillpointError("OperationNotAllowed", "An adopted virtual machine is started by its owner.");
    await machine.exclusively(async () => {
      await setQuitting(machine, false);
      if ((await machine.place.findPid()) !== null) {
        await machine.connect();
        const status = await machine.refresh();
        if (status === "running" || isDeepStrictEqual(await readSpec(paths), spec)) return wake(machine, options);
        if (capturesOf(book, spec.vm).some(needsQemu))
          throw new StillpointError(
            "OperationNotAllowed",
            "A point of the virtual machine is being copied from its QEMU.",
            {
              remedy: "Its configuration has changed, so it can start when the copy has ended.",
            },
          );
        await quit(machine, options);
      }
      await machine.look();
      await launch(machine, spec, paths, options);
    });
  }

  async function setQuitting(machine: Machine, quitting: boolean): Promise<void> {
    const { vm } = machine.place;
    if (book.ledger().quitting.has(vm) !== quitting) await book.note({ t: "quitting", vm, quitting });
    machine.set({ quitting });
  }

  async function powerOff(machine: Machine, graceMs: number): Promise<void> {
    ownOnly(machine, "powered off");
    if (machine.state().process === "down") return;
    await machine.connect();
    if (graceMs > 0 && (await softOff(machine, options, graceMs))) return;
    await machine.exclusively(() => hardOff(machine, options));
  }

  async function deallocate(machine: Machine, graceMs: number): Promise<void> {
    ownOnly(machine, "deallocated");
    await machine.look();
    if (machine.state().process === "down") return;
    // A hung monitor must not keep a VM for ever: the clean signal ends it all the same.
    if (machine.state().process === "up") await powerOff(machine, graceMs);
    await machine.exclusively(async () => {
      if (capturesOf(book, machine.place.vm).some(needsQemu)) return setQuitting(machine, true);
      await quit(machine, options);
    });
  }

  async function inspect(machine: Machine): Promise<VmFacts> {
    const { vm, kind } = machine.place;
    const facts = await readFacts(machine.qmp(), kind === "adopted");
    const agent = FACTS_AGENT_NEEDS.has(facts.status) ? await agentState(machine, options) : "absent";
    const { incarnation, pid } = machine.state();
    if (incarnation === null) throw new StillpointError("HypervisorUnavailable", `The QEMU of ${vm} has just ended.`);
    return { vm, kind, incarnation, pid, agent, ...facts };
  }

  return {
    calls: {
      hello: async ({ version }) => {
        if (Math.abs(version - GUARD_PROTOCOL_VERSION) > 1)
          throw new StillpointError(
            "OperationNotAllowed",
            `The guard speaks version ${GUARD_PROTOCOL_VERSION} of its protocol, the service version ${version}.`,
            { remedy: "Upgrade one step at a time: the two may differ by one." },
          );
        return { version: Math.min(version, GUARD_PROTOCOL_VERSION), guardPid: process.pid, startedAt };
      },
      "vm.start": async ({ spec }) => {
        await start(spec);
        return machines.get(spec.vm).state();
      },
      "vm.powerOff": async ({ vm, graceMs }) => {
        await powerOff(machines.get(vm), graceMs);
        return machines.get(vm).state();
      },
      "vm.deallocate": async ({ vm, graceMs }) => {
        await deallocate(machines.get(vm), graceMs);
        return machines.get(vm).state();
      },
      "vm.forget": async ({ vm }) => {
        const machine = machines.find(vm);
        if (!machine) return {};
        ownOnly(machine, "forgotten");
        await machine.exclusively(async () => {
          await machine.look();
          if (machine.state().process !== "down")
            throw new StillpointError("OperationNotAllowed", "The virtual machine's QEMU still runs.", {
              remedy: "Deallocate it first.",
            });
          machines.remove(vm);
          await setQuitting(machine, false);
          await removeRuntime(runtimePaths(options.dataDir, vm));
        });
        return {};
      },
      "vm.adopt": async (params) => {
        await adopt(tools, params, guard);
        return inspect(machines.get(params.vm));
      },
      "vm.release": async ({ vm, steps }) => {
        await release(tools, vm, steps);
        return {};
      },
      "vm.list": async () => machines.all().map((machine) => machine.state()),
      "vm.inspect": async ({ vm }) => inspect(machines.get(vm)),
      "vm.nbd": async ({ vm }) => {
        const machine = machines.get(vm);
        const ours = await machine.exclusively(() => nbd.available(machine));
        return { server: ours ? "ours" : "foreign" };
      },
      "vm.execute": async ({ vm, step }) => {
        checkStep(step, new Set(), "step");
        const machine = machines.get(vm);
        return (await machine.exclusively(() => runStep(machine.qmp(), step, options))) ?? null;
      },
      ...captureCalls(tools, endings, watch),
    },
    close: async () => {
      stopped.abort();
      for (const { place } of machines.all()) machines.remove(place.vm);
      await book.close();
    },
  };
}

function ownPlace(options: GuardOptions, vm: VmUid): MachinePlace {
  const paths = runtimePaths(options.dataDir, vm);
  return {
    vm,
    kind: "own",
    qmpSocket: paths.qmpSocket,
    agentSocket: paths.agentSocket,
    findPid: () => findQemu(paths),
  };
}

function ownOnly(machine: Machine, done: string): void {
  if (machine.place.kind === "own") return;
  throw new StillpointError("OperationNotAllowed", `An adopted virtual machine is ${done} by its owner.`);
}
