/** ARM writes UTC as `+00:00`; the domain as `Z`. */
export function armTime(iso: string): string {
  return iso.replace(/Z$/, "+00:00");
}
