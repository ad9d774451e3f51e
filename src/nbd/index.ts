export {
  connectNbd,
  type NbdClient,
  type NbdExtent,
  type NbdOptions,
  STATE_DIRTY,
  STATE_HOLE,
  STATE_ZERO,
} from "./client.ts";
