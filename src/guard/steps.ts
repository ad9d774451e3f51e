import { type Clock, type Probe, StillpointError } from "../base/index.ts";
import { readJobs } from "../hypervisors/qemu/index.ts";
import { type QmpClient, QmpError } from "../hypervisors/qmp/index.ts";
import type { QmpStep } from "./protocol.ts";

const STEP_MS = 30_000;
const JOB_END_MS = 60_000;
const JOB_POLL_MS = 20;

export interface StepTools {
  readonly clock: Clock;
  readonly probe: Probe;
}

/**
 * Runs one step that was found allowed. An error whose text is tolerated counts as done and gives null. With
 * `untilJobEnds` it returns when the job is concluded or gone; DeadlineExceeded after 60 s.
 */
export async function runStep(qmp: QmpClient, step: QmpStep, tools: StepTools): Promise<unknown> {
  tools.probe(step.name, "before");
  const result = await executeTolerant(qmp, step);
  if (step.untilJobEnds !== undefined) await jobEnded(qmp, step.untilJobEnds, tools.clock);
  tools.probe(step.name, "after");
  return result;
}

async function executeTolerant(qmp: QmpClient, step: QmpStep): Promise<unknown> {
  try {
    return await qmp.execute(step.execute, step.arguments, STEP_MS);
  } catch (error) {
    if (error instanceof QmpError && step.tolerate?.some((words) => error.description.includes(words))) return null;
    throw error;
  }
}

async function jobEnded(qmp: QmpClient, id: string, clock: Clock): Promise<void> {
  const end = clock.monotonicMs() + JOB_END_MS;
  for (;;) {
    const job = (await readJobs(qmp)).find((candidate) => candidate.id === id);
    if (!job || job.status === "concluded" || job.status === "null") return;
    if (clock.monotonicMs() > end)
      throw new StillpointError(
        "DeadlineExceeded",
        `The job ${id} did not end within ${JOB_END_MS} ms (${job.status}).`,
      );
    await clock.sleep(JOB_POLL_MS);
  }
}

/**
 * Runs undoing steps: all of them, whatever fails, for each one that is done takes a weight off the guest.
 * Resolves with what failed, or with null; rejects only when QEMU is out of reach.
 */
export async function runAllSteps(qmp: QmpClient, steps: readonly QmpStep[], tools: StepTools): Promise<string | null> {
  const failures: string[] = [];
  for (const step of steps) {
    try {
      await runStep(qmp, step, tools);
    } catch (error) {
      if (error instanceof StillpointError && error.code === "HypervisorUnavailable") throw error;
      failures.push(`${step.name}: ${(error as Error).message}`);
    }
  }
  return failures.length === 0 ? null : failures.join("; ");
}
