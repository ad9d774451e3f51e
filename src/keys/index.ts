export * from "./derive.ts";
export * from "./domain-keys.ts";
export * from "./key-file.ts";
export * from "./keyed-hash.ts";
export * from "./recovery-kit.ts";
export * from "./seal.ts";
