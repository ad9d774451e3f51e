export {
  connectNbd,
  type NbdClient,
  type NbdExtent,
  type NbdOptions,
  STATE_DIRTY,
  STATE_ZERO,
} from "./client.ts";
