/**
 * Handles the signals that stop the server, reload its certificate, or start its successor.
 *
 * @module
 */

/** The signals that stop the server, and their numbers; the exit code of a process that a signal ended is 128 + number. */
const SIGNALS: Readonly<Record<string, number>> = Deno.build.os === "windows"
  ? { SIGINT: 2, SIGBREAK: 21 }
  : { SIGINT: 2, SIGQUIT: 3, SIGTERM: 15 };

/** Minimum time in milliseconds between two signals: under `deno task`, one Ctrl-C arrives twice within milliseconds. */
const SAME_MS = 300;

/**
 * Handles signals until the end of the process.
 *
 * @param stop Called at the first signal.
 * @param quit Called once, at the first signal more than `SAME_MS` after the first, with the time since the first in
 * milliseconds and the exit code that the signal stands for. Under `deno task` every Ctrl-C arrives twice; the repeats
 * are ignored.
 */
export function onSignals(
  stop: (signal: string) => void,
  quit: (signal: string, after: number, exitCode: number) => void,
): void {
  let first: number | undefined;
  let quitting = false;
  for (const [signal, number] of Object.entries(SIGNALS)) {
    Deno.addSignalListener(signal as Deno.Signal, () => {
      const now = performance.now();
      if (first === undefined) {
        first = now;
        stop(signal);
      } else if (now - first > SAME_MS && !quitting) {
        quitting = true;
        quit(signal, now - first, 128 + number);
      }
    });
  }
}

/**
 * Handles signals that would otherwise end the process without a drain.
 *
 * @param hangup Called at each SIGHUP.
 * @param upgrade Called at each SIGUSR2.
 */
export function onOthers(hangup: () => void, upgrade: () => void): void {
  if (Deno.build.os === "windows") return;
  Deno.addSignalListener("SIGHUP", hangup);
  Deno.addSignalListener("SIGUSR2", upgrade);
}
