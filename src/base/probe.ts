/**
 * Told before and after each named step of a plan. Production has none; the crash-point walk gives one that ends the
 * process there, so that every instant between two steps is a tested instant.
 */
export type Probe = (step: string, moment: "before" | "after") => void;
