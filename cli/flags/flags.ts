/**
 * The tables of flags, from which parsing, environment variables, checks and `--help` follow.
 *
 * @module
 */

import {
  DEFAULT_HOSTNAME,
  DEFAULT_PORT,
  LARGEST_BYTES,
  LEAST_KEEP_ALIVE_MS,
  LONGEST_MS,
  MOST_KEEP_ALIVE_MS,
} from "../../internal/api/check.ts";
import { type Descriptor, DESCRIPTORS, UPGRADE } from "./descriptors.ts";
import {
  ADMIN,
  FILE,
  HOST,
  type Kind,
  MODE,
  NAMES,
  NETWORKS,
  oneOf,
  orNone,
  orOff,
  PORT,
  PROXIES,
  size,
  SWITCH,
  TARGET,
  type Target,
  TIME,
  time,
  type UnixTarget,
  whole,
  WORKERS,
} from "./kinds.ts";

/** The variable that holds the token of the admin port. */
export const TOKEN_VARIABLE = "SHOUTY_ADMIN_TOKEN";

/** A sentence about it in `--help`. */
export const TOKEN_NOTE: string = `${TOKEN_VARIABLE} is the token of the admin port itself, in place of a file.`;

/** A flag, which is named after the option that it sets: `--idle-timeout` after `idleTimeout`. */
export interface Flag<T> {
  readonly kind: Kind<T>;
  /** The default: a value as the user would write it, the option whose value it takes, or the words that `--help` shows. */
  readonly default: string | { readonly as: string } | { readonly says: string };
  /** What the flag means, in a few words. */
  readonly help: string;
}

/** Flags, by the name of the option that each sets. */
export type Flags = Readonly<Record<string, Flag<unknown>>>;

/** A command: what its command line may contain. */
export interface Command<F extends Flags = Flags, Operand = unknown> {
  /** The name, as the user types it. */
  readonly name: string;
  /** What the command does, to be read after its name. */
  readonly summary: string;
  /** The one argument that is not a flag; `undefined` if the command takes none. */
  readonly operand?: Kind<Operand>;
  readonly flags: F;
  /** The headings in `--help`, each at the first flag of its group; the table has the flags of a group together. */
  readonly groups?: Readonly<Partial<Record<keyof F & string, string>>>;
  /** The prefix of the names of its environment variables; `undefined` if the command reads none. */
  readonly variables?: string;
  /** The options that have a variable; by default all. */
  readonly variablesOf?: readonly string[];
  /** Variables with this prefix that it reads besides those of its flags. */
  readonly otherVariables?: readonly string[];
  /** Sentences at the end of `--help`. */
  readonly notes?: readonly string[];
}

/** The switches that every command takes, and what each does. */
export const SWITCHES = { help: "show this help", version: "show the version" } as const;

/** The types of the server's flags, grouped by the type of their values. */
export type ServeFlags =
  & FlagsOf<
    number,
    | ("idleTimeout" | "lineTimeout" | "writeTimeout" | "firstLineTimeout" | "maxAge" | "keepAliveMs")
    | ("drainTimeout" | "drainDelay" | "drainSpread" | "maxPenaltyMs")
    | ("maxLines" | "maxLineBytes" | "maxConnectionBytes" | "maxBufferedBytes")
    | ("maxLinesPerSecond" | "maxBytesPerSecond" | "acceptRate" | "acceptRatePerIp")
    | ("maxConnections" | "maxConnectionsPerIp" | "logSample")
    | ("port" | "proxyHeaderTimeout" | "unixMode" | "tlsHandshakeTimeout" | "upgradeTimeout")
  >
  & FlagsOf<string, "hostname">
  & FlagsOf<number | null, "tlsPort">
  & FlagsOf<string | null, "unix" | "tlsCert" | "tlsKey" | "tlsClientCa" | "adminTokenFile">
  & FlagsOf<Target | UnixTarget | null, "admin">
  & FlagsOf<readonly string[] | null, "allow" | "deny" | "proxyProtocol" | "adminHost">
  & FlagsOf<boolean, "answerMisdirected" | "telnet" | "trace">
  & FlagsOf<readonly Descriptor[] | "systemd" | null, "listenFd">
  & FlagsOf<"on" | "off" | "child", "upgrade">
  & FlagsOf<"linger" | "finish", "drain">
  & FlagsOf<"reject" | "wait", "atCapacity">
  & FlagsOf<"deno" | "epoll", "engine">
  & FlagsOf<number | "auto" | null, "workers">
  & FlagsOf<"debug" | "info" | "warn" | "error", "logLevel">
  & FlagsOf<"text" | "json", "logFormat">;

/** Flags of one type, by their names. */
export type FlagsOf<T, Name extends string> = Readonly<Record<Name, Flag<T>>>;

/** The server's command. */
export const SERVE: Command<ServeFlags> = {
  name: "shouty",
  summary: "serves TCP clients: each line comes back in upper case",
  variables: "SHOUTY_",
  // Not the variable of a flag: other users of the machine can read command lines.
  otherVariables: [TOKEN_VARIABLE],
  notes: [TOKEN_NOTE],
  groups: {
    hostname: "Where to listen",
    idleTimeout: "Time",
    maxLineBytes: "Size and rate",
    maxConnections: "Who is served",
    tlsCert: "TLS",
    proxyProtocol: "Other protocols",
    drainTimeout: "Shutdown and restart",
    admin: "Admin port",
    logLevel: "Log",
  },
  flags: {
    hostname: flag(HOST, DEFAULT_HOSTNAME, "address or name to listen on"),
    port: flag(whole(0, 65_535), `${DEFAULT_PORT}`, "port to listen on; 0 picks a free one"),
    unix: flag(FILE, "off", "listen on a Unix socket, not on port 8080"),
    unixMode: flag(MODE, { says: "by umask" }, "mode of the socket's file"),
    listenFd: flag(DESCRIPTORS, "off", "listen on sockets that are open already"),
    engine: flag(oneOf("deno", "epoll"), "deno", "epoll: Linux only, needs --allow-ffi"),
    workers: flag(WORKERS, "off", "use several cores; needs --allow-read"),
    idleTimeout: flag(orOff(TIME), "10s", "close a connection silent for this long"),
    lineTimeout: flag(orOff(TIME), { as: "idleTimeout" }, "close it if one line takes longer"),
    writeTimeout: flag(orOff(TIME), { as: "idleTimeout" }, "close it if replies are not read"),
    firstLineTimeout: flag(orOff(TIME), { as: "idleTimeout" }, "close it if no first line has begun"),
    maxAge: flag(orOff(TIME), "off", "end older connections, at a line's end"),
    keepAliveMs: flag(
      orOff(time(LEAST_KEEP_ALIVE_MS, MOST_KEEP_ALIVE_MS)),
      "15s",
      "TCP keep-alive: probe silent clients",
    ),
    maxLineBytes: flag(size(LARGEST_BYTES), "65536", "longest line"),
    maxConnectionBytes: flag(orOff(size()), "off", "most that one client may send"),
    maxLines: flag(orOff(whole(1)), "off", "end connections that sent this many lines"),
    maxLinesPerSecond: flag(orOff(whole(1)), "off", "most lines read per client and second"),
    maxBytesPerSecond: flag(orOff(size()), "off", "most bytes read per client and second"),
    maxBufferedBytes: flag(orOff(size()), "128MiB", "most memory for unfinished lines and replies"),
    maxConnections: flag(orOff(whole(1)), "10000", "most connections at a time"),
    atCapacity: flag(oneOf("reject", "wait"), "reject", "reject the next one, or let it wait"),
    maxConnectionsPerIp: flag(orOff(whole(1)), "off", "most per IPv4 address or IPv6 /64"),
    allow: flag(NETWORKS, "off", "serve only these addresses"),
    deny: flag(NETWORKS, "off", "reject these, even if --allow has them"),
    acceptRate: flag(orOff(whole(1)), "off", "most new connections a second"),
    acceptRatePerIp: flag(orOff(whole(1)), "off", "the same per IPv4 address or IPv6 /64"),
    maxPenaltyMs: flag(orNone(time(1000, LONGEST_MS)), "off", "shut out clients that keep being rejected"),
    tlsCert: flag(FILE, "off", "speak TLS, with this certificate (PEM)"),
    tlsKey: flag(FILE, "off", "the private key, if not in --tls-cert"),
    tlsClientCa: flag(FILE, "off", "accept only clients certified by these"),
    tlsPort: flag(PORT, "off", "speak TLS on this port only, not on --port"),
    tlsHandshakeTimeout: flag(orOff(TIME), "10s", "how long a TLS handshake may take"),
    proxyProtocol: flag(PROXIES, "off", "proxies, which have to send PROXY headers"),
    proxyHeaderTimeout: flag(orOff(TIME), "5s", "how long a PROXY header may take"),
    answerMisdirected: flag(SWITCH, "on", "answer HTTP and TLS with an error"),
    telnet: flag(SWITCH, "off", "remove and answer Telnet's commands"),
    drainTimeout: flag(orOff(TIME), "8s", "how long a shutdown waits for clients"),
    drainDelay: flag(orNone(TIME), "off", "how long a shutdown goes on accepting first"),
    drainSpread: flag(orNone(TIME), "off", "spread the ends of a shutdown over this time"),
    drain: flag(oneOf("linger", "finish"), "linger", "let clients go on, or finish a line only"),
    upgrade: flag(UPGRADE, "off", "at SIGUSR2, a new process takes over"),
    upgradeTimeout: flag(time(100, LONGEST_MS), "30s", "how long that may take to be ready"),
    admin: flag(ADMIN, "off", "for health, metrics, a page and shouty admin"),
    adminTokenFile: flag(FILE, "off", "the token that its clients have to send"),
    adminHost: flag(NAMES, "off", "names by which browsers address it"),
    logLevel: flag(oneOf("debug", "info", "warn", "error"), "info", "least level to log, on stderr"),
    logFormat: flag(oneOf("text", "json"), "text", "one text line or JSON object per event"),
    logSample: flag(orOff(whole(1)), "off", "most lines of a kind in a second"),
    trace: flag(SWITCH, "off", "log all that clients send: for developers"),
  },
};

/** The types of the client's flags, grouped by the type of their values. */
export type ConnectFlags =
  & FlagsOf<number, "timeout">
  & FlagsOf<boolean, "tls">
  & FlagsOf<string | undefined, "tlsServerName">
  & FlagsOf<string | null, "tlsCa" | "tlsCert" | "tlsKey">;

/** The client's command. */
export const CONNECT: Command<ConnectFlags, Target | UnixTarget> = {
  name: "shouty connect",
  summary: "sends lines from stdin to a server, and writes what comes back to stdout",
  operand: TARGET,
  flags: {
    timeout: flag(orOff(TIME), "10s", "how long to wait for the server"),
    tls: flag(SWITCH, "off", "speak TLS, and verify the server's certificate"),
    tlsServerName: flag<string | undefined>(HOST, { says: "the HOST" }, "the name that the certificate has to be for"),
    tlsCa: flag(FILE, "off", "trust these authorities (PEM), not Deno's"),
    tlsCert: flag(FILE, "off", "show this certificate (PEM) to the server"),
    tlsKey: flag(FILE, "off", "the private key, if not in --tls-cert"),
  },
};

/** The flag of an option, without the dashes. */
export function flagName(option: string): string {
  return option.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** The name of an option's environment variable. */
export function variableName(prefix: string, option: string): string {
  return prefix + flagName(option).toUpperCase().replaceAll("-", "_");
}

/** Makes a flag. */
export function flag<T>(kind: Kind<T>, fallback: Flag<T>["default"], help: string): Flag<T> {
  return { kind, default: fallback, help };
}
