/**
 * The client of the admin port: `shouty admin`.
 *
 * @module
 */

import { quote } from "../../internal/api/errors.ts";
import type { Status } from "../../ops/admin/status.ts";
import { ask, type Asked } from "./client.ts";
import { ADMIN_COMMAND, ADMIN_COMMANDS, type AdminCommand, type Verb } from "../flags/admin_flags.ts";
import { connectionsText, limitsText, statusText } from "./text.ts";
import { readToken } from "./token.ts";
import { closest } from "../line/closest.ts";
import { CommandError } from "../system/errors.ts";
import type { Environment } from "../line/environment.ts";
import { requireFile } from "../system/files.ts";
import { type Command, TOKEN_VARIABLE } from "../flags/flags.ts";
import { sayAnswer } from "../help/help.ts";
import { failed, formatTarget, requireNet } from "../system/net.ts";
import { type Given, parse } from "../line/parse.ts";
import { keepOnly, type PermissionName } from "../system/permissions.ts";
import { say } from "../system/print.ts";

type AdminGiven = Given<AdminCommand["flags"]> & { readonly operand: number | undefined };

/** What a command asks, and how its answer reads. */
interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
  /** Words the answer for people. */
  // deno-lint-ignore no-explicit-any
  text(answer: any): string;
}

const EXCHANGES: Readonly<Record<Verb, (given: AdminGiven) => Exchange>> = {
  status: () => ({ method: "GET", path: "/status", text: statusText }),
  connections: (given) => ({ method: "GET", path: `/connections?${queryOf(given)}`, text: connectionsText }),
  drain: (given) => ({ method: "POST", path: "/drain", body: drainOptions(given), text: drainText }),
  pause: () => ({ method: "POST", path: "/pause", text: () => "paused: the server accepts no more connections" }),
  resume: () => ({ method: "POST", path: "/resume", text: () => "resumed: the server accepts connections" }),
  close: ({ operand, values: { detail } }) => ({
    ...{ method: "POST", path: `/connections/${operand}/close`, body: { detail } },
    text: () => `closing connection ${operand}`,
  }),
  limits(given) {
    const changes = limitsOf(given);
    const method = Object.keys(changes).length > 0 ? "PATCH" : "GET";
    return { method, path: "/limits", ...(method === "PATCH" && { body: changes }), text: limitsText };
  },
};

/**
 * Runs one command of `shouty admin`.
 *
 * @param args The arguments after `admin`.
 * @param environment Looks up environment variables.
 * @returns The exit code.
 * @throws {CommandError} (As a rejection.) If the command line is wrong, or the server does not do it.
 */
export async function runAdmin(args: readonly string[], environment: Environment): Promise<number> {
  const [verb = "", ...rest] = args;
  if (!Object.hasOwn(ADMIN_COMMANDS, verb)) return await umbrella(args);
  const command: AdminCommand = ADMIN_COMMANDS[verb as Verb];
  const parsed = parse(command, rest, environment);
  if (parsed.ask !== undefined) return await sayAnswer(parsed.ask, command as Command);
  return await run(EXCHANGES[verb as Verb](parsed), parsed, environment(TOKEN_VARIABLE));
}

/** Answers `--help` and `--version` before any of the commands; anything else there is an error. */
async function umbrella(args: readonly string[]): Promise<number> {
  const command = ADMIN_COMMAND as Command;
  const [verb = ""] = args;
  const meant = closest(verb, Object.keys(ADMIN_COMMANDS));
  if (meant !== undefined && !verb.startsWith("-")) {
    throw new CommandError(`cannot use argument ${quote(verb)}: did you mean shouty admin ${meant}?`, 2);
  }
  // The first argument is no command. The ones after it would only hide that in the error, except --help.
  const asks = (arg: string) => ["-h", "--help", "--version"].includes(arg);
  const parsed = parse(command, args.filter((arg, i) => i === 0 || verb.startsWith("-") || asks(arg)));
  if (parsed.ask !== undefined) return await sayAnswer(parsed.ask, command);
  // A flag came before the command: with no value of its own, it could take the command for one.
  throw new CommandError(`cannot use ${quote(verb)} here: expected the flags behind ${parsed.operand}`, 2);
}

async function run(
  { method, path, body, text }: Exchange,
  { values, nameOf }: AdminGiven,
  variable: string | undefined,
): Promise<number> {
  const { admin: target, adminTokenFile, timeout, json } = values;
  const network: PermissionName[] = "path" in target ? ["net", "read", "write"] : ["net"];
  keepOnly(...network, ...adminTokenFile === null ? [] : ["read"] as const);
  const port: Asked = { target, timeout, token: await readToken(adminTokenFile, variable, nameOf) };
  keepOnly(...network);
  requireNet("ask", formatTarget(target));
  if ("path" in target) requireFile(`ask ${formatTarget(target)}`, target.path, ["read", "write"]);
  const answered = await ask(port, method, path, body);
  return await say(json ? answered.trimEnd() : worded(answered, text, formatTarget(target)));
}

/** Words an answer. What is JSON and lacks what an answer has comes from another server. */
function worded(answer: string, text: Exchange["text"], address: string): string {
  try {
    return text(JSON.parse(answer));
  } catch {
    throw failed("ask", address, "the answer is not that of an admin port");
  }
}

/** The parameters of the list. The server has the same defaults. */
function queryOf({ values, given }: AdminGiven): URLSearchParams {
  const names = ["sort", "filter", "phase", "waitsFor", "limit", "offset"].filter((name) => given.has(name));
  return new URLSearchParams(names.map((name) => [name, String((values as Record<string, unknown>)[name])]));
}

function drainOptions({ values, given }: AdminGiven): Record<string, unknown> {
  const options = { drain: "drain", drainTimeout: "drainTimeout", drainDelay: "delay", drainSpread: "spread" };
  const entries = Object.entries(options).filter(([name]) => given.has(name));
  return Object.fromEntries(entries.map(([name, option]) => [option, (values as Record<string, unknown>)[name]]));
}

function drainText({ state, stats }: Status): string {
  return `${state === "lame-duck" ? "lame duck" : state}: ${stats.active} open`;
}

function limitsOf({ values, given }: AdminGiven): Record<string, unknown> {
  const common = ["admin", "adminTokenFile", "timeout", "json"];
  return Object.fromEntries(Object.entries(values).filter(([name]) => given.has(name) && !common.includes(name)));
}
