/** `node setup/guest/build.ts`: builds the demonstration guest unless it is there, and prints where it lies. */
import { buildGuest } from "./index.ts";

const guest = await buildGuest((line) => console.log(line));
console.log(`guest: ${guest.osDisk}`);
