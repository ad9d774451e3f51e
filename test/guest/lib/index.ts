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
export { buildGuest, LAYOUT, makeDataDisk } from "../../../setup/guest/index.ts";
export { connectConsole, type GuestConsole } from "../../../src/programs/quickstart/console.ts";
export {
  inWriteOrder,
  lastNumbers,
  readSequence,
  type SequenceImage,
} from "../../../src/programs/quickstart/sequences.ts";
export { type StartOptions, type Stillpoint, startStillpoint } from "./stillpoint.ts";
export {
  computeId,
  consoleOf,
  createGuestVm,
  GUEST_TIMEOUT_MS,
  type GuestVm,
  groupId,
  guestImages,
  SUBSCRIPTION,
  untilAgentReady,
} from "./vm.ts";
