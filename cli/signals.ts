/**
 * The signals that the server knows.
 *
 * @module
 */

/** Their numbers; a process that one of them ended has the exit code 128 + that. */
const SIGNALS: Readonly<Record<string, number>> = Deno.build.os === "windows"
  ? { SIGINT: 2, SIGBREAK: 21 }
  : { SIGINT: 2, SIGQUIT: 3, SIGTERM: 15 };

/** One Ctrl-C under `deno task` arrives twice, from the terminal and forwarded, within milliseconds. */
const SAME_MS = 300;

/**
 * Listens for signals, from now on and to the end of the process.
 *
 * @param stop Called at the first one.
 * @param quit Called at each that comes later and is not the same one again, with how long after the first, in
 * milliseconds, and with the exit code that it asks for.
 */
export function onSignals(
  stop: (signal: string) => void,
  quit: (signal: string, after: number, exitCode: number) => void,
): void {
  let first: number | undefined;
  for (const [signal, number] of Object.entries(SIGNALS)) {
    Deno.addSignalListener(signal as Deno.Signal, () => {
      const now = performance.now();
      if (first === undefined) {
        first = now;
        stop(signal);
      } else if (now - first > SAME_MS) {
        quit(signal, now - first, 128 + number);
      }
    });
  }
}

/**
 * Listens for SIGHUP, from now on; without this, it would end the process without a drain.
 *
 * @param hangup Called at each.
 */
export function onHangup(hangup: () => void): void {
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGHUP", hangup);
}
