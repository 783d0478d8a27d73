/**
 * A second implementation of the wire rules, written from their description and not from the code: it says what a
 * shouter answers to a whole input, however that was cut on its way.
 *
 * @module
 */

/** The limits that shape an answer. */
export interface Limits {
  maxLineBytes: number;
  maxConnectionBytes: number;
}

/** The reply to a client, and the close reason. */
export interface Answer {
  lines: Uint8Array[];
  reason: "end" | "line-too-long" | "byte-limit";
}

const LF = 10;
const CR = 13;

/**
 * Looks at one byte after another. A line ends at LF; one CR just before it, or at the end of input, is dropped. The
 * first byte past a limit ends the input. After a line of the maximum length, one CR is allowed if LF or the end
 * follows.
 */
export function answer(input: Uint8Array, { maxLineBytes, maxConnectionBytes }: Limits): Answer {
  const lines: Uint8Array[] = [];
  let line: number[] = [];
  const chop = () => {
    if (line.at(-1) === CR) line.pop();
    lines.push(new Uint8Array(line));
    line = [];
  };
  for (const [i, byte] of input.entries()) {
    if (i === maxConnectionBytes) return { lines, reason: "byte-limit" };
    if (byte === LF) {
      chop();
      continue;
    }
    line.push(byte);
    const isForgiven = line.length === maxLineBytes + 1 && byte === CR;
    if (line.length > maxLineBytes && !isForgiven) return { lines, reason: "line-too-long" };
  }
  if (line.length > 0) chop();
  return { lines, reason: "end" };
}

/** Returns the text with which a shouter answers. */
export function shouted(input: Uint8Array, limits: Limits): string {
  const { lines, reason } = answer(input, limits);
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const replies = lines.map((line) => decoder.decode(line).toUpperCase() + "\n").join("");
  return reason === "end" ? replies : `${replies}${lastWord(reason, limits)}\n`;
}

/** Returns the last line for a peer whose input was wrong; undefined for any other reason. */
export function lastWord(reason: string, { maxLineBytes, maxConnectionBytes }: Limits): string | undefined {
  if (reason === "line-too-long") return `error: line longer than ${bytes(maxLineBytes)}`;
  if (reason === "byte-limit") return `error: more than ${bytes(maxConnectionBytes)} from one connection`;
  if (reason === "unterminated") return "error: last line without its end";
  return reason === "invalid-text" ? "error: invalid text" : undefined;
}

function bytes(count: number): string {
  return count === 1 ? "1 byte" : `${count} bytes`;
}
