export { createMachines } from "./machines.ts";
