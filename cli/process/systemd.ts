/**
 * What systemd says to a service by environment variables, and what the command says to systemd.
 *
 * @module
 */

import { LONGEST_MS } from "../../internal/api/check.ts";
import { openNotifySocket, type SendMessage } from "./notify_socket.ts";
import { type Descriptor, FIRST_FD } from "../flags/descriptors.ts";
import type { Environment } from "../line/environment.ts";
import { CommandError, reasonOf } from "../system/errors.ts";
import type { Log } from "../log/log.ts";
import type { PermissionName } from "../system/permissions.ts";

/** The program that sends a message. */
const PROGRAM = "systemd-notify";

/** The name of a descriptor that speaks TLS: `FileDescriptorName=tls` in the socket's unit. */
const TLS_NAME = "tls";

/** What systemd has said. It names the process, since the variables are inherited by other processes too. */
export interface Systemd {
  /** The socket for messages; undefined if systemd wants none. */
  readonly notifySocket: string | undefined;
  /** Time in milliseconds after which systemd restarts a silent service; undefined if it does not. */
  readonly watchdogMs: number | undefined;
  /**
   * Returns the descriptors that systemd has opened.
   *
   * @throws {CommandError} If it has opened none.
   */
  descriptors(): readonly Descriptor[];
}

/** Maximum number of sockets that systemd is taken to pass: with a wrong number, the list of them would fill the memory. */
const MOST_FDS = 1024;

/** Reads systemd's variables, which takes the permission for them. */
export function readSystemd(environment: Environment): Systemd {
  const read = (name: string) => environment(name) || undefined;
  const [count, names] = [read("LISTEN_FDS"), read("LISTEN_FDNAMES")];
  const [listenPid, watchdogPid] = [read("LISTEN_PID"), read("WATCHDOG_PID")];
  const watchdogUsec = Number(read("WATCHDOG_USEC"));
  const watched = watchdogUsec > 0 && (watchdogPid === undefined || Number(watchdogPid) === Deno.pid);
  return {
    notifySocket: read("NOTIFY_SOCKET"),
    watchdogMs: watched ? watchdogUsec / 1000 : undefined,
    descriptors: () => descriptorsOf(count, listenPid, names?.split(":") ?? []),
  };
}

function descriptorsOf(count: string | undefined, pid: string | undefined, names: string[]): Descriptor[] {
  const refused = (why: string) => new CommandError(`cannot use --listen-fd systemd: ${why}`, 2);
  if (count === undefined || pid === undefined) {
    throw refused("expected the variables LISTEN_FDS and LISTEN_PID, which --allow-env=LISTEN_* lets it read");
  }
  if (Number(pid) !== Deno.pid) throw refused(`LISTEN_PID is ${pid}, and this process is ${Deno.pid}`);
  const length = Number(count);
  if (!(Number.isInteger(length) && length > 0 && length <= MOST_FDS)) {
    throw refused(`LISTEN_FDS is ${count}, expected 1 to ${MOST_FDS}`);
  }
  return Array.from({ length }, (_, i) => ({ fd: FIRST_FD + i, tls: names[i] === TLS_NAME }));
}

/** How messages are sent to systemd: by a socket of our own, or by a program, as far as that is permitted. */
function senderFor(notifySocket: string, warn: (text: string) => void): SendMessage | undefined {
  if (mayCallLibrary()) return openNotifySocket(notifySocket);
  // `--allow-run=systemd-notify` suffices.
  if (Deno.permissions.querySync({ name: "run", command: PROGRAM }).state !== "granted") return undefined;
  return (text) => {
    const output = { stdin: "null", stdout: "null", stderr: "null" } as const;
    const child = new Deno.Command(PROGRAM, { args: text.split("\n"), ...output }).spawn();
    child.unref();
    child.status.then(({ success, code }) =>
      success || warn(`systemd did not take a message: ${PROGRAM} ended with status ${code}`)
    );
    return true;
  };
}

/** The permissions that messages to systemd take while the server runs. */
export function neededToNotify({ notifySocket }: Systemd): PermissionName[] {
  return notifySocket === undefined || mayCallLibrary() ? [] : ["run"];
}

/** The permissions to open what sends them. */
export function neededToOpenNotifier({ notifySocket }: Systemd): PermissionName[] {
  return notifySocket === undefined ? [] : ["ffi", "run"];
}

function mayCallLibrary(): boolean {
  const { state, partial } = Deno.permissions.querySync({ name: "ffi" });
  return state === "granted" && !partial;
}

/** Tells systemd about the server. Each method does nothing if systemd wants no messages. */
export interface Notifier {
  /** The server listens; from now on, systemd's watchdog is told that it works. */
  ready(): void;
  /** The server stops. */
  stopping(): void;
  /** Another process goes on in place of this one, which says no more. */
  handOver(pid: number): void;
}

/** Opens what tells systemd. A failure is one line in the log. */
export function openNotifier({ notifySocket, watchdogMs }: Systemd, log: Log): Notifier {
  const send = sender(notifySocket, log);
  let over = send === undefined;
  const say = (text: string) => {
    const why = over ? undefined : problemWith(send!, text);
    if (why === undefined) return;
    const shown = text.replaceAll("\n", " ");
    log.write("warn", "systemd-error", () => `systemd did not take the message ${shown}${why}`);
  };
  return {
    ready() {
      say(`READY=1\nMAINPID=${Deno.pid}`);
      if (over || watchdogMs === undefined) return;
      // Half of the interval, as systemd's manual says. With a time beyond its maximum, the timer would fire all the time.
      Deno.unrefTimer(setInterval(() => say("WATCHDOG=1"), Math.min(watchdogMs / 2, LONGEST_MS)));
    },
    // The watchdog goes on: a drain that hangs is a server that hangs.
    stopping: () => say("STOPPING=1"),
    handOver(pid) {
      say(`MAINPID=${pid}`);
      over = true;
    },
  };
}

/** Sends a message. Returns `undefined` if it was sent; otherwise the end of a log line that says why not, if that is known. */
function problemWith(send: SendMessage, text: string): string | undefined {
  try {
    return send(text) ? undefined : "";
  } catch (error) {
    // The program is not there, or no descriptor or process is left for it. Thrown by a timer, it would end the server.
    return `: ${reasonOf(error)}`;
  }
}

function sender(notifySocket: string | undefined, log: Log): SendMessage | undefined {
  if (notifySocket === undefined) return undefined;
  const warn = (text: string) => log.write("warn", "systemd-error", () => text);
  const failed = (why: string) => warn(`cannot tell systemd anything: ${why}`);
  try {
    const send = senderFor(notifySocket, warn);
    if (send === undefined) failed("that takes --allow-ffi, or --allow-run=systemd-notify");
    return send;
  } catch (error) {
    failed(reasonOf(error));
  }
}
