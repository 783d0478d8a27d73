/**
 * What ends the command early, and how errors read in one line.
 *
 * @module
 */

/** Ends the command: one line for the user, and the exit code. */
export class CommandError extends Error {
  /** 1 where the world is in the way, 2 where the command is used wrongly. */
  readonly exitCode: 1 | 2;

  constructor(message: string, exitCode: 1 | 2) {
    super(message);
    this.name = "CommandError";
    this.exitCode = exitCode;
  }
}

const { AddrInUse, AddrNotAvailable, ConnectionRefused, ConnectionReset, BrokenPipe, PermissionDenied } = Deno.errors;

/** The same words on every system, where systems have their own. */
const REASONS = [
  [AddrInUse, "address already in use"],
  [AddrNotAvailable, "address not available"],
  [ConnectionRefused, "connection refused"],
  [ConnectionReset, "connection reset"],
  [BrokenPipe, "broken pipe"],
  [PermissionDenied, "permission denied"],
] as const;

/**
 * Says in a few words why something failed, to stand at the end of a line.
 *
 * @param error What was thrown.
 * @returns One line, without a full stop.
 */
export function reasonOf(error: unknown): string {
  const known = REASONS.find(([kind]) => error instanceof kind);
  if (known !== undefined) return known[1];
  const message = error instanceof Error ? error.message || error.name : String(error);
  const reason = message.replace(/ \(os error \d+\)/, "").replaceAll(/\s+/g, " ").trim();
  // "Too many open files" becomes lower case; "TLS is not supported" and "TypeError" stay.
  return /^[A-Z][a-z]+\b/.test(reason) ? reason[0].toLowerCase() + reason.slice(1) : reason;
}
