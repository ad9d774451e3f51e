export * from "./bytes.ts";
export * from "./clock.ts";
export * from "./deadline.ts";
export * from "./durable.ts";
export * from "./errors.ts";
export * from "./ids.ts";
export * from "./random.ts";
export * from "./spawn.ts";
