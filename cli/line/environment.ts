/**
 * The command's environment variables: reading them, and telling those that set nothing.
 *
 * @module
 */

import { closest } from "./closest.ts";
import { type Command, variableName } from "../flags/flags.ts";

/** Looks up an environment variable. */
export type Environment = (name: string) => string | undefined;

/** Environment variables that set nothing, and the line that says so. */
export interface Ignored {
  readonly variables: readonly string[];
  readonly text: string;
}

/** Values that Kubernetes sets for each Service in every pod: `SHOUTY_PORT=tcp://10.96.0.12:8080` for one named `shouty`. */
const SERVICE_ADDRESS = /^(tcp|udp|sctp):\/\//;

/**
 * Ends of the names of the other variables that it sets: `SHOUTY_SERVICE_HOST`, `SHOUTY_SERVICE_PORT_HTTP`,
 * `SHOUTY_PORT_8080_TCP_ADDR`; and `SHOUTY_WEB_SERVICE_HOST` for a Service named `shouty-web`.
 */
const SERVICE_NAMES = /_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$/;

/** Maximum names of variables in one line of the log. */
const MOST_NAMES = 3;

/** Reads the variables of one command. */
export class Variables {
  readonly #command: Command;
  readonly #environment: Environment;
  readonly #kubernetes = new Set<string>();

  /**
   * @param command The command.
   * @param environment Looks up a variable.
   */
  constructor(command: Command, environment: Environment) {
    this.#command = command;
    this.#environment = environment;
  }

  /** Looks up the variable of an option; one that holds the address of a Service counts as not set. */
  read(option: string): { readonly name: string; readonly text: string | undefined } {
    const { variables, variablesOf } = this.#command;
    if (variables === undefined || variablesOf?.includes(option) === false) return { name: "", text: undefined };
    const name = variableName(variables, option);
    const text = this.#environment(name);
    if (text === undefined || !SERVICE_ADDRESS.test(text)) return { name, text };
    this.#kubernetes.add(name);
    return { name, text: undefined };
  }

  /**
   * Tells which variables with the command's prefix set nothing. Their values may be secret, so no line has them.
   *
   * @param names The names of all variables; empty if the command may not list them.
   * @returns One entry for all that Kubernetes has set, and one for each variable that no flag has.
   */
  ignored(names: readonly string[]): Ignored[] {
    const { variables, otherVariables = [], flags } = this.#command;
    const known = Object.keys(flags).map((option) => variableName(variables ?? "", option));
    const all = new Set([...known, ...otherVariables]);
    const strange = names.filter((name) => variables !== undefined && name.startsWith(variables) && !all.has(name));
    const ofServices = strange.filter((name) => this.#isOfService(name));
    const kubernetes = [...this.#kubernetes, ...ofServices].toSorted();
    const unknown = strange.filter((name) => !kubernetes.includes(name)).toSorted();
    return [
      ...(kubernetes.length > 0 ? [{ variables: kubernetes, text: wordKubernetes(kubernetes) }] : []),
      ...unknown.map((name) => ({ variables: [name], text: wordUnknown(name, [...all]) })),
    ];
  }

  #isOfService(name: string): boolean {
    return SERVICE_NAMES.test(name) || SERVICE_ADDRESS.test(this.#environment(name) ?? "");
  }
}

function wordKubernetes(names: readonly string[]): string {
  const more = names.length - MOST_NAMES;
  const list = more > 0 ? `${names.slice(0, MOST_NAMES).join(", ")} and ${more} more` : names.join(", ");
  const set = names.length === 1 ? "it to the address" : "them to the addresses";
  return `ignored ${list}: Kubernetes sets ${set} of a Service`;
}

function wordUnknown(name: string, known: readonly string[]): string {
  const meant = closest(name, known);
  return `ignored ${name}: no flag has this variable${meant === undefined ? "" : `; did you mean ${meant}?`}`;
}
