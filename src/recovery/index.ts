export { createRestores, type RestoresOptions } from "./restores.ts";
