/** A run of a disk's data on its way. */
export interface Run {
  readonly offset: number;
  readonly data: Uint8Array;
}

/**
 * Writes all runs, at most `depth` at a time, so that reading (with its decryption) and writing overlap and memory stays
 * bounded. Every write has ended when it returns or throws, so that the target can be closed. Stops at the first error.
 */
export async function pour(
  runs: AsyncIterable<Run>,
  depth: number,
  write: (offset: number, data: Uint8Array) => Promise<void>,
): Promise<void> {
  const inFlight = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | null = null;
  try {
    for await (const { offset, data } of runs) {
      while (inFlight.size >= depth) await Promise.race(inFlight);
      if (failure) break;
      const one = write(offset, data)
        .catch((error: unknown) => {
          failure ??= { error };
        })
        .finally(() => inFlight.delete(one));
      inFlight.add(one);
    }
  } finally {
    await Promise.all(inFlight);
  }
  throwIf(failure);
}

/** A function of its own: the compiler does not see that callbacks set the variable. */
function throwIf(failure: { readonly error: unknown } | null): void {
  if (failure) throw failure.error;
}
