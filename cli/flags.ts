/**
 * The flags. Parsing, the environment, `--help` and the checks follow from the tables here.
 *
 * @module
 */

import { DEFAULT_HOSTNAME, DEFAULT_PORT, LARGEST_BYTES } from "../internal/api/check.ts";
import {
  FILE,
  HOST,
  type Kind,
  MODE,
  NETWORKS,
  oneOf,
  orOff,
  PROXIES,
  size,
  SWITCH,
  TARGET,
  type Target,
  TIME,
  whole,
} from "./kinds.ts";

/** A flag, which is named after the option that it sets: `--idle-timeout` after `idleTimeout`. */
export interface Flag<T> {
  readonly kind: Kind<T>;
  /** Its value when it is not given, as it would be written; or the option whose value it takes; or what happens. */
  readonly default: string | { readonly as: string } | { readonly says: string };
  /** What it means, in a few words. */
  readonly help: string;
}

/** Flags by the name of the option that each sets. */
export type Flags = Readonly<Record<string, Flag<unknown>>>;

/** One command: what can be said on its line. */
export interface Command<F extends Flags = Flags, Operand = unknown> {
  /** Its name, as it is typed. */
  readonly name: string;
  /** What it does, to be read after its name. */
  readonly summary: string;
  /** The one argument that is no flag; without it there is none. */
  readonly operand?: Kind<Operand>;
  readonly flags: F;
  /** What the names of its environment variables begin with; without it there are none. */
  readonly variables?: string;
}

/** What every command also takes, and what that does. */
export const SWITCHES = { help: "show this help", version: "show the version" } as const;

/** The server's flags, by the type of their values. */
export type ServeFlags =
  & FlagsOf<
    number,
    | ("idleTimeout" | "lineTimeout" | "writeTimeout" | "firstLineTimeout" | "drainTimeout" | "maxAge" | "keepAliveMs")
    | ("maxLines" | "maxLineBytes" | "maxConnectionBytes" | "maxBufferedBytes")
    | ("maxLinesPerSecond" | "maxBytesPerSecond" | "acceptRate" | "acceptRatePerIp")
    | ("maxConnections" | "maxConnectionsPerIp")
    | ("port" | "proxyHeaderTimeout" | "unixMode" | "tlsHandshakeTimeout")
  >
  & FlagsOf<string, "hostname">
  & FlagsOf<string | null, "unix" | "tlsCert" | "tlsKey" | "tlsClientCa">
  & FlagsOf<readonly string[] | null, "allow" | "deny" | "proxyProtocol">
  & FlagsOf<boolean, "answerMisdirected" | "telnet">
  & FlagsOf<"linger" | "finish", "drain">
  & FlagsOf<"reject" | "wait", "atCapacity">
  & FlagsOf<"deno" | "epoll", "engine">
  & FlagsOf<"debug" | "info" | "warn" | "error", "logLevel">
  & FlagsOf<"text" | "json", "logFormat">;

type FlagsOf<T, Name extends string> = Readonly<Record<Name, Flag<T>>>;

/** The server. */
export const SERVE: Command<ServeFlags> = {
  name: "shouty",
  summary: "serves TCP clients: each line comes back in upper case",
  variables: "SHOUTY_",
  flags: {
    hostname: flag(HOST, DEFAULT_HOSTNAME, "address or name to listen on"),
    port: flag(whole(0, 65_535), `${DEFAULT_PORT}`, "port to listen on; 0 picks a free one"),
    idleTimeout: flag(orOff(TIME), "10s", "hang up on a client silent for so long"),
    lineTimeout: flag(orOff(TIME), { as: "idleTimeout" }, "hang up when one line takes longer"),
    writeTimeout: flag(orOff(TIME), { as: "idleTimeout" }, "hang up when replies are not taken"),
    firstLineTimeout: flag(orOff(TIME), { as: "idleTimeout" }, "hang up on a client that has said nothing"),
    keepAliveMs: flag(orOff(TIME), "15s", "ask whether a silent client is still there"),
    maxAge: flag(orOff(TIME), "off", "end older connections, at a line's end"),
    maxLines: flag(orOff(whole(1)), "off", "end connections that have sent more lines"),
    drainTimeout: flag(orOff(TIME), "8s", "how long a shutdown waits for clients"),
    drain: flag(oneOf("linger", "finish"), "linger", "let clients go on, or finish their line"),
    maxLineBytes: flag(size(LARGEST_BYTES), "65536", "longest line"),
    maxConnectionBytes: flag(orOff(size()), "off", "most that one client may send"),
    maxLinesPerSecond: flag(orOff(whole(1)), "off", "read no more lines of one client a second"),
    maxBytesPerSecond: flag(orOff(size()), "off", "read no more of one client a second"),
    maxBufferedBytes: flag(orOff(size()), "128MiB", "most memory for unfinished lines"),
    answerMisdirected: flag(SWITCH, "on", "tell HTTP and TLS clients what this is"),
    telnet: flag(SWITCH, "off", "take out Telnet's commands, and answer them"),
    maxConnections: flag(orOff(whole(1)), "10000", "most clients at a time"),
    atCapacity: flag(oneOf("reject", "wait"), "reject", "turn the next one away, or let it wait"),
    maxConnectionsPerIp: flag(orOff(whole(1)), "off", "most of one IPv4 address, or one IPv6 /64"),
    allow: flag(NETWORKS, "off", "serve only these addresses"),
    deny: flag(NETWORKS, "off", "never serve these, whatever --allow says"),
    acceptRate: flag(orOff(whole(1)), "off", "most new clients a second"),
    acceptRatePerIp: flag(orOff(whole(1)), "off", "most of one IPv4 address, or one IPv6 /64"),
    proxyProtocol: flag(PROXIES, "off", "proxies that have to send PROXY headers"),
    proxyHeaderTimeout: flag(orOff(TIME), "5s", "how long such a header may take"),
    unix: flag(FILE, "off", "listen on a Unix socket, not a port"),
    unixMode: flag(MODE, { says: "by umask" }, "who may connect to it"),
    tlsCert: flag(FILE, "off", "speak TLS, with this certificate (PEM)"),
    tlsKey: flag(FILE, "off", "its private key, if that is not in it"),
    tlsClientCa: flag(FILE, "off", "let in only clients certified by these"),
    tlsHandshakeTimeout: flag(orOff(TIME), "10s", "how long a TLS handshake may take"),
    engine: flag(oneOf("deno", "epoll"), "deno", "epoll: on Linux, takes --allow-ffi"),
    logLevel: flag(oneOf("debug", "info", "warn", "error"), "info", "least level to log, on stderr"),
    logFormat: flag(oneOf("text", "json"), "text", "a line or a JSON object per event"),
  },
};

/** The client. */
export const CONNECT: Command<Record<"timeout", Flag<number>>, Target> = {
  name: "shouty connect",
  summary: "sends lines from stdin to a server, and writes what comes back to stdout",
  operand: TARGET,
  flags: {
    timeout: flag(orOff(TIME), "10s", "how long to wait for the server"),
  },
};

/** How an option is written as a flag, without the dashes. */
export function flagName(option: string): string {
  return option.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** How an option's environment variable is called. */
export function variableName(prefix: string, option: string): string {
  return prefix + flagName(option).toUpperCase().replaceAll("-", "_");
}

function flag<T>(kind: Kind<T>, fallback: Flag<T>["default"], help: string): Flag<T> {
  return { kind, default: fallback, help };
}
