/**
 * Decides which connections are served.
 *
 * @module
 */

import { checkRate, checkWhole, checkWord } from "../api/check.ts";
import type { AdmitResult, Clock, ServeOptions } from "../api/serve_options.ts";
import { parseCidrs } from "./cidr.ts";
import { ClientRates } from "./client_rates.ts";
import { clientOf } from "./cidr.ts";
import { type ConnLimits, mergeLimits } from "../api/conn_options.ts";
import { Rate } from "../time/rate.ts";
import type { AdmissionRejectReason } from "../api/reasons.ts";

/** The options that decide which connections are served. */
export interface AdmissionRules {
  readonly maxConnections: number;
  readonly maxConnectionsPerIp: number;
  /** Maximum number of connections accepted per second, and at once after a second without any. */
  readonly acceptRate: number;
  /** The same limit for each client. */
  readonly acceptRatePerIp: number;
  /** What happens at `maxConnections`. */
  readonly atCapacity: "reject" | "wait";
  /** Whether the lists `allow` and `deny` let this address in. */
  readonly allowed: (addr: Deno.Addr) => boolean;
}

/**
 * What to do with the next connection: admit it, leave it in the kernel's backlog for `ms` milliseconds, or reject it.
 */
export type Decision =
  | { readonly kind: "admit" }
  | { readonly kind: "wait"; readonly ms: number }
  | { readonly kind: "reject"; readonly reason: AdmissionRejectReason; readonly limit?: number };

/** The facts on which a decision depends. */
export interface Situation {
  /** The number of open connections. */
  readonly active: number;
  /** The time until `acceptRate` allows one more connection, in milliseconds. */
  readonly dueMs: number;
  /** The connection to decide about; undefined before it is accepted. */
  readonly newcomer?: Newcomer;
}

/** A connection that was accepted and is not admitted yet. */
export interface Newcomer {
  /** The peer's address. */
  readonly addr: Deno.Addr;
  /** The number of open connections of the same client. */
  readonly connections: number;
  /** Whether the same client opens connections faster than `acceptRatePerIp` allows. */
  readonly tooFast: boolean;
}

const ADMIT: Decision = { kind: "admit" };

/**
 * Decides about the next connection. It is called before the connection is accepted, when it can be made to wait, and
 * again after that, when its peer's address is known.
 *
 * @param rules The rules.
 * @param situation The facts.
 * @returns What to do with the connection.
 */
export function decide(rules: AdmissionRules, { active, dueMs, newcomer }: Situation): Decision {
  const { maxConnections, maxConnectionsPerIp, acceptRatePerIp, atCapacity, allowed } = rules;
  const full = active >= maxConnections;
  if (newcomer === undefined) {
    if (full && atCapacity === "wait") return { kind: "wait", ms: Infinity };
    return dueMs > 0 ? { kind: "wait", ms: dueMs } : ADMIT;
  }
  const { addr, connections, tooFast } = newcomer;
  // Checked first, because it is the cheapest: each other rejection costs an error line and a graceful close.
  if (tooFast) return reject("accept-rate-per-ip", acceptRatePerIp);
  if (!allowed(addr)) return reject("denied");
  if (full) return reject("max-connections", maxConnections);
  return connections >= maxConnectionsPerIp ? reject("max-connections-per-ip", maxConnectionsPerIp) : ADMIT;
}

function reject(reason: AdmissionRejectReason, limit?: number): Decision {
  return limit === undefined ? { kind: "reject", reason } : { kind: "reject", reason, limit };
}

/** Decides about each connection, and keeps the counts and rates that the decisions need. */
export class Admission {
  readonly #rules: AdmissionRules;
  readonly #now: () => number;
  readonly #clients = new Map<string, number>();
  #active = 0;
  readonly #rate: Rate | undefined;
  readonly #clientRates: ClientRates | undefined;

  /**
   * @param rules The rules.
   * @param now Returns the time, in milliseconds.
   */
  constructor(rules: AdmissionRules, now: () => number) {
    this.#rules = rules;
    this.#now = now;
    if (rules.acceptRate !== Infinity) this.#rate = new Rate(rules.acceptRate);
    if (rules.acceptRatePerIp !== Infinity) this.#clientRates = new ClientRates(rules.acceptRatePerIp);
  }

  /** Returns how many milliseconds to wait before accepting the next connection; `Infinity` until a connection ends. */
  delay(): number {
    const decision = decide(this.#rules, { active: this.#active, dueMs: this.#rate?.wait(this.#now()) ?? 0 });
    return decision.kind === "wait" ? decision.ms : 0;
  }

  /**
   * Decides about a connection that was accepted. An admitted connection is counted until {@linkcode leave}.
   *
   * The connection counts for `acceptRate`, unless its client is above `acceptRatePerIp`. In that case the next
   * connection, which may be another client's, is accepted at once, so a storm from one address does not use up the
   * common rate.
   */
  enter(addr: Deno.Addr): Decision {
    const now = this.#now();
    const client = this.#clientOf(addr);
    const connections = this.#clients.get(client) ?? 0;
    const tooFast = client !== "" && this.#clientRates?.take(client, now) === false;
    if (!tooFast) this.#rate?.take(now, 1);
    const newcomer = { addr, connections, tooFast };
    const decision = decide(this.#rules, { active: this.#active, dueMs: 0, newcomer });
    if (decision.kind !== "admit") return decision;
    this.#active++;
    if (client !== "" && this.#countsClients) this.#clients.set(client, connections + 1);
    return decision;
  }

  /** Notes that an admitted connection has ended. */
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

  /** The client of a connection; empty if no rule depends on clients, or if the peer has no IP address. */
  #clientOf(addr: Deno.Addr): string {
    const needed = this.#countsClients || this.#clientRates !== undefined;
    return needed && "hostname" in addr ? clientOf(addr.hostname) : "";
  }
}

/** What the hook `admit` has decided: limits if the connection is admitted; an error if the hook failed. */
export interface Verdict {
  readonly limits?: ConnLimits;
  readonly error?: unknown;
}

/** Connections about which the hook `admit` has not decided. */
export class Candidates {
  readonly #clock: Clock;
  readonly #timeout: number;
  readonly #limits: ConnLimits;
  readonly #drops = new Set<() => void>();

  /**
   * @param clock The source of time.
   * @param timeout Maximum time for a decision, in milliseconds.
   * @param limits The limits of the server, which the hook can change.
   */
  constructor(clock: Clock, timeout: number, limits: ConnLimits) {
    this.#clock = clock;
    this.#timeout = timeout;
    this.#limits = limits;
  }

  /**
   * Asks the hook about a connection, but waits no longer than the time limit.
   *
   * @param ask Calls the hook.
   * @returns The decision; never rejects.
   */
  async ask(ask: () => AdmitResult | Promise<AdmitResult>): Promise<Verdict> {
    const { promise, resolve } = Promise.withResolvers<Verdict>();
    const timeout = this.#timeout;
    const late = () => resolve({ error: new Deno.errors.TimedOut(`No decision of admit within ${timeout} ms`) });
    const cancel = timeout === Infinity ? () => {} : this.#clock.setTimer(late, timeout, true);
    const drop = () => resolve({});
    this.#drops.add(drop);
    this.#verdictOf(ask).then(resolve);
    const verdict = await promise;
    this.#drops.delete(drop);
    cancel();
    return verdict;
  }

  async #verdictOf(ask: () => AdmitResult | Promise<AdmitResult>): Promise<Verdict> {
    try {
      const result = await ask();
      return result === false ? {} : { limits: mergeLimits(this.#limits, result ?? {}) };
    } catch (error) {
      return { error };
    }
  }

  /** Rejects all of them: the server has stopped accepting. */
  close(): void {
    for (const drop of this.#drops) drop();
  }
}

type AdmissionOptions = Pick<
  ServeOptions,
  "maxConnections" | "maxConnectionsPerIp" | "acceptRate" | "acceptRatePerIp" | "atCapacity" | "allow" | "deny"
>;

/** Checks the options of admission, and fills in their defaults. */
export function admissionRules(options: AdmissionOptions): AdmissionRules {
  const { maxConnections = 10_000, maxConnectionsPerIp = Infinity, acceptRate = Infinity } = options;
  const { acceptRatePerIp = Infinity, atCapacity = "reject" } = options;
  checkWhole("maxConnections", maxConnections, 1, Infinity);
  checkWhole("maxConnectionsPerIp", maxConnectionsPerIp, 1, Infinity);
  checkRate("acceptRate", acceptRate);
  checkRate("acceptRatePerIp", acceptRatePerIp);
  checkWord("atCapacity", atCapacity, ["reject", "wait"]);
  const allowed = addressRule(options);
  return { maxConnections, maxConnectionsPerIp, acceptRate, acceptRatePerIp, atCapacity, allowed };
}

function addressRule({ allow, deny }: AdmissionOptions): (addr: Deno.Addr) => boolean {
  const allowed = allow && parseCidrs("allow", allow);
  const denied = deny && parseCidrs("deny", deny);
  return (addr) => !("hostname" in addr) || !denied?.matches(addr) && (allowed?.matches(addr) ?? true);
}
