/**
 * What guest tests use.
 *
 *     const site = await startStillpoint();
 *     try {
 *       const vm = await createGuestVm(site);
 *       …
 *     } finally {
 *       await site.stop();
 *     }
 */
export { LAYOUT } from "../../../setup/guest/index.ts";
export {
  inWriteOrder,
  lastNumbers,
  readSequence,
  type SequenceImage,
} from "../../../src/programs/quickstart/sequences.ts";
export { type StartOptions, type Stillpoint, startStillpoint } from "./stillpoint.ts";
export { computeId, createGuestVm, GUEST_TIMEOUT_MS, type GuestVm } from "./vm.ts";
