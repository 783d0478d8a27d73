/**
 * The commands of `shouty admin`, as tables of flags.
 *
 * @module
 */

import { MOST_ROWS, PHASES, SORTS, WAITS } from "../../ops/admin/connections.ts";
import { type Command, type Flag, flag, type Flags, type FlagsOf, SERVE, TOKEN_NOTE } from "./flags.ts";
import {
  FILE,
  type Kind,
  oneOf,
  orNone,
  orOff,
  size,
  SWITCH,
  TARGET,
  type Target,
  TEXT,
  TIME,
  type UnixTarget,
  whole,
} from "./kinds.ts";

/** The flags that all commands of `shouty admin` have. */
export type CommonFlags =
  & FlagsOf<Target | UnixTarget, "admin">
  & FlagsOf<string | null, "adminTokenFile">
  & FlagsOf<number, "timeout">
  & FlagsOf<boolean, "json">;

const COMMON: CommonFlags = {
  admin: flag(TARGET, "127.0.0.1:9090", "address of the server's admin port"),
  adminTokenFile: flag(FILE, "off", "the token, if the port asks for one"),
  timeout: flag(TIME, "10s", "how long to wait for the answer"),
  json: flag(SWITCH, "off", "write JSON, for machines"),
};

const AS_IS = { says: "as it is" };

const LIMITS_OF_SHOUTY = kept(AS_IS, [
  ...["idleTimeout", "lineTimeout", "writeTimeout", "firstLineTimeout", "maxAge", "maxLines"],
  ...["maxLineBytes", "maxConnectionBytes", "maxLinesPerSecond", "maxBytesPerSecond", "answerMisdirected"],
  ...["maxConnections", "atCapacity", "maxConnectionsPerIp", "allow", "deny", "acceptRate", "acceptRatePerIp"],
  ...["maxPenaltyMs"],
]);

/** What `shouty admin limits` changes. */
const LIMITS: Flags = {
  ...LIMITS_OF_SHOUTY,
  // The command's own server has no flags for these; another program that has an admin port can have them.
  handlerTimeout: flag(orOff(TIME), AS_IS, "close it if the handler takes longer"),
  halfCloseTimeout: flag(orOff(TIME), AS_IS, "the same after the peer has ended"),
  minBytesPerSecond: flag(orNone(whole(1)), AS_IS, "close it if a body comes more slowly"),
  maxQueuedBytes: flag(orOff(size()), AS_IS, "close it if more waits to be written"),
  idleOn: flag<string>(oneOf("both", "read"), AS_IS, "what counts as silence"),
  independentLines: flag(SWITCH, AS_IS, "give each line memory of its own"),
};

const PHASE: Kind<string> = {
  ...oneOf<string>(...PHASES),
  symbol: "PHASE",
  legend: [`PHASE is ${oneOf(...PHASES).allowed}.`],
};

const WAIT: Kind<string> = {
  ...oneOf<string>(...WAITS),
  symbol: "STATE",
  legend: [`STATE is ${oneOf(...WAITS).allowed}.`],
};

const SORT: Kind<string> = {
  symbol: "COLUMN",
  words: SORTS,
  legend: [`COLUMN is one of ${SORTS.join(", ")}; --sort=-age is in descending order.`],
  allowed: `one of ${SORTS.join(", ")}, or one of them after a -`,
  read: (text) => SORTS.includes(text.replace(/^-/, "")) ? text : undefined,
};

/** The words that name the commands. */
export type Verb = "status" | "connections" | "drain" | "pause" | "resume" | "close" | "limits";

/** A command of `shouty admin`. */
export type AdminCommand = Command<CommonFlags & Flags, number | undefined>;

const CONNECTIONS: Flags = {
  sort: flag(SORT, "id", "the order"),
  filter: flag(TEXT, { says: "all" }, "those whose peer or detail has this text"),
  phase: flag(PHASE, { says: "all" }, "those in this phase"),
  waitsFor: flag(WAIT, { says: "all" }, "those that wait for this"),
  limit: flag(whole(1, MOST_ROWS), "100", "how many to show"),
  offset: flag(whole(0), "0", "how many to leave out before"),
};

const DRAIN = kept({ says: "as the server" }, ["drain", "drainTimeout", "drainDelay", "drainSpread"]);

const CLOSE: Flags = { detail: flag(TEXT, "admin", "the word for the end, in the log") };

/** The commands, by the word that names each. */
export const ADMIN_COMMANDS: Readonly<Record<Verb, AdminCommand>> = {
  status: command("status", "shows whether a server is ready, and what it has done"),
  connections: command("connections", "lists a server's open connections", CONNECTIONS),
  drain: command("drain", "ends a server as SIGTERM does", DRAIN),
  pause: command("pause", "makes a server accept no more connections for now"),
  resume: command("resume", "makes a paused server accept connections again"),
  close: {
    ...command("close", "closes one of a server's connections, by its number", CLOSE),
    operand: { ...whole(1), symbol: "ID" },
  },
  limits: command("limits", "shows a server's limits, after it has changed those that are given", LIMITS),
};

/** All of them in one, for `--help`, the manual page and completions. */
export const ADMIN_COMMAND: Command<Flags, Verb> = {
  ...command("", "asks a server's admin port, and steers the server"),
  operand: oneOf(...Object.keys(ADMIN_COMMANDS) as Verb[]),
  flags: { ...COMMON, ...CONNECTIONS, ...DRAIN, ...CLOSE, ...LIMITS },
  groups: {
    admin: "All",
    sort: "shouty admin connections",
    drain: "shouty admin drain",
    detail: "shouty admin close ID",
    idleTimeout: "shouty admin limits",
  },
};

function command(verb: string, summary: string, flags: Flags = {}): AdminCommand {
  const variables = { variables: "SHOUTY_", variablesOf: ["admin", "adminTokenFile"], notes: [TOKEN_NOTE] };
  return { name: `shouty admin ${verb}`.trim(), summary, flags: { ...COMMON, ...flags }, ...variables };
}

/** Some of the server's flags, without their defaults. */
function kept(fallback: Flag<unknown>["default"], names: readonly string[]): Flags {
  const all: Flags = SERVE.flags;
  return Object.fromEntries(names.map((name) => [name, { ...all[name], default: fallback }]));
}
