export { createJournal } from "./journal-port.ts";
export { openRepository } from "./open.ts";
export * from "./types.ts";
