/**
 * Who gets in, decided in one place.
 *
 * @module
 */

import { checkRate, checkWhole, checkWord } from "../api/check.ts";
import type { ServeOptions } from "../api/serve_options.ts";
import { parseCidrs } from "./cidr.ts";
import { ClientRates } from "./client_rates.ts";
import { clientOf } from "./cidr.ts";
import { Rate } from "../time/rate.ts";
import type { AdmissionRejectReason } from "../api/reasons.ts";

/** The rules of admission. */
export interface AdmissionRules {
  readonly maxConnections: number;
  readonly maxConnectionsPerIp: number;
  /** New connections per second, and so many at once after a quiet second. */
  readonly acceptRate: number;
  /** The same for each client. */
  readonly acceptRatePerIp: number;
  /** What happens at `maxConnections`. */
  readonly atCapacity: "reject" | "wait";
  /** Whether an address is welcome at all. */
  readonly welcome: (addr: Deno.Addr) => boolean;
}

/** What is to be done with the next connection: let in, left in the kernel for some milliseconds, or turned away. */
export type Decision =
  | { readonly kind: "admit" }
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "reject"; readonly reason: AdmissionRejectReason; readonly limit?: number };

/** What a decision looks at. */
export interface Situation {
  /** How many connections there are. */
  readonly active: number;
  /** In how many milliseconds one more may come, by the rate. */
  readonly dueMs: number;
  /** The connection that was accepted, as soon as one was. */
  readonly comer?: Comer;
}

/** A connection that was accepted and is not admitted yet. */
export interface Comer {
  /** The peer's address. */
  readonly addr: Deno.Addr;
  /** How many connections the same client has. */
  readonly connections: number;
  /** Whether the same client opens connections faster than it may. */
  readonly tooFast: boolean;
}

const ADMIT: Decision = { kind: "admit" };

/**
 * Decides. It is asked before a connection is accepted, when it may have to wait, and again when it is known who comes.
 *
 * @param rules The rules.
 * @param situation What there is.
 * @returns What is to be done.
 */
export function decide(rules: AdmissionRules, { active, dueMs, comer }: Situation): Decision {
  const { maxConnections, maxConnectionsPerIp, acceptRatePerIp, atCapacity, welcome } = rules;
  const full = active >= maxConnections;
  if (comer === undefined) {
    if (full && atCapacity === "wait") return { kind: "wait", ms: Infinity };
    return dueMs > 0 ? { kind: "wait", ms: dueMs } : ADMIT;
  }
  const { addr, connections, tooFast } = comer;
  // Before all else: each of the others costs the server a line and a polite end.
  if (tooFast) return reject("accept-rate-per-ip", acceptRatePerIp);
  if (!welcome(addr)) return reject("denied");
  if (full) return reject("max-connections", maxConnections);
  return connections >= maxConnectionsPerIp ? reject("max-connections-per-ip", maxConnectionsPerIp) : ADMIT;
}

function reject(reason: AdmissionRejectReason, limit?: number): Decision {
  return limit === undefined ? { kind: "reject", reason } : { kind: "reject", reason, limit };
}

/** Keeps the counts that decisions are made from. */
export class Gate {
  readonly #rules: AdmissionRules;
  readonly #now: () => number;
  readonly #clients = new Map<string, number>();
  #active = 0;
  readonly #rate: Rate | undefined;
  readonly #clientRates: ClientRates | undefined;

  /**
   * @param rules The rules.
   * @param now The time, in milliseconds.
   */
  constructor(rules: AdmissionRules, now: () => number) {
    this.#rules = rules;
    this.#now = now;
    if (rules.acceptRate !== Infinity) this.#rate = new Rate(rules.acceptRate);
    if (rules.acceptRatePerIp !== Infinity) this.#clientRates = new ClientRates(rules.acceptRatePerIp);
  }

  /** How many milliseconds to wait before the next connection is accepted; `Infinity` until one leaves. */
  delay(): number {
    const decision = decide(this.#rules, { active: this.#active, dueMs: this.#rate?.wait(this.#now()) ?? 0 });
    return decision.kind === "wait" ? decision.ms : 0;
  }

  /**
   * Decides about a connection that was accepted; one that is admitted is counted until it leaves.
   *
   * It takes of `acceptRate`, but not if its client is past `acceptRatePerIp`: the next connection, which may be another
   * client's, is accepted at once then, so that a storm from one address has no part in the rate that all share.
   */
  enter(addr: Deno.Addr): Decision {
    const now = this.#now();
    const client = this.#clientOf(addr);
    const connections = this.#clients.get(client) ?? 0;
    const tooFast = client !== "" && this.#clientRates?.take(client, now) === false;
    if (!tooFast) this.#rate?.take(now, 1);
    const comer = { addr, connections, tooFast };
    const decision = decide(this.#rules, { active: this.#active, dueMs: 0, comer });
    if (decision.kind !== "admit") return decision;
    this.#active++;
    if (client !== "" && this.#countsClients) this.#clients.set(client, connections + 1);
    return decision;
  }

  /** A connection that was let in has ended. */
  leave(addr: Deno.Addr): void {
    this.#active--;
    const client = this.#clientOf(addr);
    const connections = this.#clients.get(client) ?? 0;
    if (connections > 1) this.#clients.set(client, connections - 1);
    else this.#clients.delete(client);
  }

  get #countsClients(): boolean {
    return this.#rules.maxConnectionsPerIp !== Infinity;
  }

  /** The client that a connection belongs to; empty where no rule asks for it, or where it has no IP address. */
  #clientOf(addr: Deno.Addr): string {
    const asked = this.#countsClients || this.#clientRates !== undefined;
    return asked && "hostname" in addr ? clientOf(addr.hostname) : "";
  }
}

/** Fills in the defaults of the rules of admission, and checks them. */
export function admissionRules(options: ServeOptions): AdmissionRules {
  const { maxConnections = 10_000, maxConnectionsPerIp = Infinity, acceptRate = Infinity } = options;
  const { acceptRatePerIp = Infinity, atCapacity = "reject" } = options;
  checkWhole("maxConnections", maxConnections, 1, Infinity);
  checkWhole("maxConnectionsPerIp", maxConnectionsPerIp, 1, Infinity);
  checkRate("acceptRate", acceptRate);
  checkRate("acceptRatePerIp", acceptRatePerIp);
  checkWord("atCapacity", atCapacity, ["reject", "wait"]);
  const welcome = welcomeRule(options);
  return { maxConnections, maxConnectionsPerIp, acceptRate, acceptRatePerIp, atCapacity, welcome };
}

function welcomeRule({ allow, deny }: ServeOptions): (addr: Deno.Addr) => boolean {
  const allowed = allow && parseCidrs("allow", allow);
  const denied = deny && parseCidrs("deny", deny);
  return (addr) => !("hostname" in addr) || !denied?.matches(addr) && (allowed?.matches(addr) ?? true);
}
