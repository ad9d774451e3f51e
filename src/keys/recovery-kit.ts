import { keyLines, type RepositoryKey } from "./key-file.ts";

/**
 * The key as a page to print. The page is itself a valid key file: it can be typed in again, saved and used as
 * `repository.keyFile`, and {@link parseKey} reads it.
 */
export function recoveryKit(key: RepositoryKey, facts: { readonly region: string; readonly printedAt: Date }): string {
  const group = (hex: string) => hex.match(/.{1,4}/g)?.join(" ") ?? hex;
  return `STILLPOINT RECOVERY KIT

Region: ${facts.region}
Printed: ${facts.printedAt.toISOString()}

Whoever holds this page can read every restore point of this repository.
Without the key nobody can, however much of the repository is left.
Keep this page where neither the repository nor its hosts are.

To use it: put the four lines below into a text file with mode 0600, name that file as
repository.keyFile, and start the service, or run: stillpoint catalog rebuild --key FILE
Upper or lower case, spaces and dashes do not matter; the check finds typing mistakes.

${keyLines(key, group)}`;
}
