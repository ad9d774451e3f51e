import type { PointState, ProvisioningState } from "../../domain/index.ts";

export interface Status {
  readonly code: string;
  readonly level: "Info" | "Warning" | "Error";
  readonly displayStatus: string;
  readonly message?: string;
  readonly time?: string;
}

export function provisioningState(resource: { readonly provisioningState: ProvisioningState }): string {
  return resource.provisioningState;
}

/** Committing is Creating to a client: nothing but the last write is missing. */
export function pointProvisioningState(state: PointState): string {
  return state === "Committing" ? "Creating" : state;
}
