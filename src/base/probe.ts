/**
 * Told before and after each named step of a plan, and waited for. Production has none; the crash-point walk gives one
 * that ends the process there, so that every instant between two steps is a tested instant, and the capture suite one
 * that reads the truth of a frozen source before the copy starts.
 */
export type Probe = (step: string, moment: "before" | "after") => void | Promise<void>;
