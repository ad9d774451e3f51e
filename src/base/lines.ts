import { StillpointError } from "./errors.ts";

/**
 * Cuts a byte stream into lines without ever holding more than `maxBytes` of one: the other end may be hostile.
 * Call the result with each chunk; it throws RequestEntityTooLarge at a longer line, and the stream must then be closed.
 * Lines come without their end; empty ones are dropped.
 */
export function lineSplitter(maxBytes: number, onLine: (line: Buffer) => void): (chunk: Buffer) => void {
  let parts: Buffer[] = [];
  let heldBytes = 0;
  return (chunk) => {
    let start = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      parts.push(chunk.subarray(start, end));
      const lengthBytes = heldBytes + end - start;
      if (lengthBytes > maxBytes) throw tooLong(maxBytes);
      const line = Buffer.concat(parts, lengthBytes);
      parts = [];
      heldBytes = 0;
      start = end + 1;
      if (line.length > 0 && !(line.length === 1 && line[0] === 13)) onLine(line);
    }
    if (start === chunk.length) return;
    heldBytes += chunk.length - start;
    if (heldBytes > maxBytes) throw tooLong(maxBytes);
    // Copied: a small rest must not keep a large chunk alive.
    parts.push(Buffer.from(chunk.subarray(start)));
  };
}

function tooLong(maxBytes: number): StillpointError {
  return new StillpointError("RequestEntityTooLarge", `A line of more than ${maxBytes} bytes came over the socket.`);
}

/**
 * JSON from a stranger: refuses nesting deeper than `maxDepth` before anything is built, so that no later walk over
 * the value can exhaust the stack. Throws BadRequest.
 */
export function parseJsonBounded(text: string, maxDepth = 64): unknown {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (inString) {
      if (c === 92) i++;
      else if (c === 34) inString = false;
    } else if (c === 34) inString = true;
    else if (c === 123 || c === 91) {
      if (++depth > maxDepth) throw new StillpointError("BadRequest", `JSON is nested deeper than ${maxDepth}.`);
    } else if (c === 125 || c === 93) depth--;
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new StillpointError("BadRequest", "What came over the socket is not JSON.", { cause });
  }
}
