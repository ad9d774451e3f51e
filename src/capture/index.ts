export type { CaptureDeps } from "./deps.ts";
export { createCaptures } from "./engine.ts";
