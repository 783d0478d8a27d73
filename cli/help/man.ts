/**
 * The manual page, in the language of `man`.
 *
 * @module
 */

import manifest from "../../deno.json" with { type: "json" };
import { COMMANDS } from "../flags/commands.ts";
import type { Command } from "../flags/flags.ts";
import { callOf, type Group, groupsOf, notesOf } from "./help.ts";

const EXIT_CODES = [
  ["0", "The server has drained; the client has talked to the end."],
  ["1", "The server cannot listen, or cannot accept any more; the client has lost its connection."],
  [
    "2",
    "A flag, an environment variable or the content of a file is wrong. Standard error says in one line what is allowed.",
  ],
  ["130, 143, 131", "A second signal, SIGINT, SIGTERM or SIGQUIT, has ended the server at once."],
] as const;

const SIGNALS = [
  [
    "SIGINT, SIGTERM, SIGQUIT",
    "Accept no more connections, and end when those that are open have ended. A second one ends at once.",
  ],
  ["SIGHUP", "Read the files of --tls-cert, --tls-key and --tls-client-ca again, for new connections."],
  ["SIGUSR2", "With --upgrade, start the program anew, and end when the new process has taken over."],
] as const;

/** Writes the manual page of all commands. */
export function manPage(): string {
  const [server] = COMMANDS;
  return [
    `.TH SHOUTY 1 "" "shouty ${escape(manifest.version)}" "User Commands"`,
    ...[".SH NAME", `shouty \\- ${escape(server.summary)}`],
    ...[".SH SYNOPSIS", ...COMMANDS.flatMap((command) => [".br", synopsis(command)]).slice(1)],
    ".SH DESCRIPTION",
    ...COMMANDS.flatMap(({ name, summary }) => [`.B ${escape(name)}`, `${escape(summary)}.`, ".br"]).slice(0, -1),
    ...COMMANDS.flatMap(flagsOf),
    ...[".SH SIGNALS", ...SIGNALS.flatMap(entry)],
    ...[".SH EXIT STATUS", ...EXIT_CODES.flatMap(entry)],
  ].join("\n");
}

function synopsis(command: Command): string {
  return `\\fB${escape(command.name)}\\fR${escape(callOf(command).slice(command.name.length))}`;
}

/** The section about the flags of one command. */
function flagsOf(command: Command): string[] {
  const notes = notesOf(command).flatMap((note) => [".br", text(note)]).slice(1);
  return [
    `.SH FLAGS OF ${escape(command.name.toUpperCase())}`,
    ...groupsOf(command).flatMap(groupOf),
    ...(notes.length > 0 ? [".PP", ...notes] : []),
  ];
}

function groupOf({ title, rows }: Group): string[] {
  const lines = rows.flatMap(({ name, symbol, standard, meaning }) => [
    ".TP",
    `\\fB${escape(name)}\\fR${symbol && ` \\fI${escape(symbol)}\\fR`}`,
    text(`${sentence(meaning)}.${standard && ` Default: ${standard}.`}`),
  ]);
  return [...(title === "" ? [] : [`.SS ${escape(title)}`]), ...lines];
}

/** Begins with a capital letter, unless it begins with a value such as `epoll:`. */
function sentence(text: string): string {
  return text.replace(/^[a-z](?=[a-z]* )/, (letter) => letter.toUpperCase());
}

function entry([what, meaning]: readonly [string, string]): string[] {
  return [".TP", `.B ${escape(what)}`, text(meaning)];
}

/** A line of text: one that begins with a dot or an apostrophe would be taken for a request. */
function text(line: string): string {
  return escape(line).replace(/^[.']/, "\\&$&");
}

/** Escapes what `man` would take for its own, and keeps each dash as a dash that a user can copy. */
function escape(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll("'", "\\(aq").replaceAll("~", "\\(ti");
}
