import type { Writable } from "node:stream";

/** A bar on one line of a terminal; silent elsewhere. */
export interface Progress {
  update(percent: number): void;
  /** Takes the line away. Called once, also after a failure. */
  end(): void;
}

const WIDTH = 30;

export function createProgress(stream: Writable & { readonly isTTY?: boolean }, label: string): Progress {
  if (!stream.isTTY) return { update: () => {}, end: () => {} };
  let shown = "";
  return {
    update: (percent) => {
      const bounded = Math.max(0, Math.min(100, percent));
      const filled = Math.round((bounded / 100) * WIDTH);
      const text = `[${"#".repeat(filled)}${"-".repeat(WIDTH - filled)}] ${String(Math.floor(bounded)).padStart(3)} %  ${label}`;
      if (text !== shown) stream.write(`\r${text}`);
      shown = text;
    },
    end: () => {
      if (shown !== "") stream.write(`\r${" ".repeat(shown.length)}\r`);
    },
  };
}
