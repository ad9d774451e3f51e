import { StillpointError } from "./errors.ts";

/**
 * `work`, or a DeadlineExceeded error after `ms`. The signal given to `work` aborts at the deadline, so what it
 * holds is let go. `what` is the user's word for what was waited for ("the guest agent's answer").
 */
export async function withDeadline<T>(ms: number, what: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const error = new StillpointError("DeadlineExceeded", `${what} did not come within ${ms} ms.`);
      abort.abort(error);
      reject(error);
    }, ms);
  });
  try {
    return await Promise.race([work(abort.signal), late]);
  } finally {
    clearTimeout(timer);
  }
}
