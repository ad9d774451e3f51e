export * from "./commands.ts";
export type { DomainDeps } from "./context.ts";
export { createDomain } from "./domain.ts";
export { type RebuildReport, rebuildCatalog } from "./journal/rebuild.ts";
export * from "./model.ts";
export * from "./ports.ts";
