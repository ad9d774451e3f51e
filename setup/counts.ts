/** A reporter for node's test runner: one line `passed failed skipped` for the whole run, for .ci/run to add up. */
interface Summary {
  readonly type: string;
  readonly data: {
    readonly file?: string;
    readonly counts?: { passed: number; tests: number; cancelled: number; skipped: number; todo: number };
  };
}

export default async function* counts(source: AsyncIterable<Summary>): AsyncGenerator<string> {
  for await (const { type, data } of source) {
    // summaries of single files come too; the one of the run names no file
    if (type !== "test:summary" || data.file !== undefined || !data.counts) continue;
    const { tests, passed, skipped, todo } = data.counts;
    yield `${passed} ${tests - passed - skipped - todo} ${skipped + todo}\n`;
  }
}
