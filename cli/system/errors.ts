/**
 * The command's errors, and any error's reason in one line.
 *
 * @module
 */

/** Ends the command with one line for the user and an exit code. */
export class CommandError extends Error {
  /**
   * 2 if the command line is wrong, or what is in a file that it names: another try would fail, too. 1 for any other
   * failure, such as a file that cannot be read.
   */
  readonly exitCode: 1 | 2;
  /** Whether the line is in the log already. */
  logged = false;

  constructor(message: string, exitCode: 1 | 2) {
    super(message);
    this.name = "CommandError";
    this.exitCode = exitCode;
  }
}

const { AddrInUse, AddrNotAvailable, AlreadyExists, BrokenPipe } = Deno.errors;
const { ConnectionRefused, ConnectionReset, PermissionDenied } = Deno.errors;

/** Reasons in the words of the command, the same on all systems. */
const REASONS = [
  [AddrInUse, "address already in use"],
  [AddrNotAvailable, "address not available"],
  [ConnectionRefused, "connection refused"],
  [ConnectionReset, "connection reset"],
  [BrokenPipe, "broken pipe"],
  [PermissionDenied, "permission denied"],
  // The command creates no other file.
  [AlreadyExists, "there is a file that is not a socket"],
] as const;

/** The end of what the system says about an error. On Windows, that is a sentence with a full stop. */
const SYSTEM_END = /\.? \(os error \d+\)/;

/**
 * Words an error as the reason at the end of a line.
 *
 * @param error The thrown value.
 * @returns One line, without a full stop.
 */
export function reasonOf(error: unknown): string {
  const known = REASONS.find(([kind]) => error instanceof kind);
  if (known !== undefined) return known[1];
  const message = error instanceof Error ? error.message || error.name : String(error);
  // A program that is missing is `NotFound`, too: Deno says that itself, with the program's name.
  if (error instanceof Deno.errors.NotFound && SYSTEM_END.test(message)) return "no such file or directory";
  const reason = message.replace(SYSTEM_END, "").replaceAll(/\s+/g, " ").trim();
  // "Too many open files" becomes lower case; "TLS is not supported" and "TypeError" stay.
  return /^[A-Z][a-z]+\b/.test(reason) ? reason[0].toLowerCase() + reason.slice(1) : reason;
}
