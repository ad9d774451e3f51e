import { StillpointError } from "../../base/index.ts";

/** QEMU answered a command with an error. `description` is its own text, shortened and freed of control characters. */
export class QmpError extends StillpointError {
  readonly command: string;
  readonly description: string;

  constructor(command: string, description: string) {
    super("OperationNotAllowed", `QEMU refused '${command}': ${description}`);
    this.command = command;
    this.description = description;
  }
}

const MAX_WORDS = 500;

/** Text from a hypervisor or a guest, fit for a log line and an error message. */
export function foreignText(text: unknown): string {
  if (typeof text !== "string") return "(no text)";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: taking them out is the purpose
  return text.slice(0, MAX_WORDS).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]/g, " ");
}
