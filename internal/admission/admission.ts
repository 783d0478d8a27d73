/**
 * Decides which connections are served.
 *
 * @module
 */

import { checkPenalty, checkRate, checkWhole, checkWord } from "../api/check.ts";
import type { ConnOptions } from "../api/conn_options.ts";
import type { ServerLimits } from "../api/serve_options.ts";
import { clientOf, parseCidrs } from "./cidr.ts";
import { ClientRates } from "./client_rates.ts";
import { Penalties } from "./penalties.ts";
import { Rate } from "../time/rate.ts";
import type { AdmissionRejectReason, RejectReason } from "../api/reasons.ts";

/** The options that decide which connections are served. */
export type AdmissionOptions = Omit<ServerLimits, keyof ConnOptions>;

/** The same options, with all defaults filled in. */
export type AdmissionLimits = {
  readonly [Name in keyof AdmissionOptions]-?: Exclude<AdmissionOptions[Name], undefined>;
};

/** The rules that follow from these options. */
export interface AdmissionRules extends Omit<AdmissionLimits, "allow" | "deny"> {
  /** Whether the lists `allow` and `deny` let this address in. */
  readonly allowed: (addr: Deno.Addr) => boolean;
}

/** What to do with a connection that was accepted. */
type Decision =
  | { readonly kind: "admit" }
  | { readonly kind: "reject"; readonly reason: AdmissionRejectReason; readonly limit?: number };

/** A connection that was accepted and is not admitted yet. */
interface Newcomer {
  /** The peer's address. */
  readonly addr: Deno.Addr;
  /** The number of open connections of the same client. */
  readonly connections: number;
  /** Whether the same client opens connections faster than `acceptRatePerIp` allows. */
  readonly tooFast: boolean;
  /** Whether the same client is shut out for a while. */
  readonly penalized: boolean;
}

const ADMIT: Decision = { kind: "admit" };

/**
 * Decides about a connection that was accepted.
 *
 * @param rules The rules.
 * @param active The number of open connections.
 * @param newcomer What is known of the connection.
 * @returns What to do with it.
 */
export function decide(
  rules: AdmissionRules,
  active: number,
  { addr, connections, tooFast, penalized }: Newcomer,
): Decision {
  const { maxConnections, maxConnectionsPerIp, acceptRatePerIp, maxPenaltyMs, allowed } = rules;
  // Checked first, because they are the cheapest: each other rejection costs an error line and a graceful close.
  if (penalized) return reject("penalty", maxPenaltyMs);
  if (tooFast) return reject("accept-rate-per-ip", acceptRatePerIp);
  if (!allowed(addr)) return reject("denied");
  if (active >= maxConnections) return reject("max-connections", maxConnections);
  return connections >= maxConnectionsPerIp ? reject("max-connections-per-ip", maxConnectionsPerIp) : ADMIT;
}

function reject(reason: AdmissionRejectReason, limit?: number): Decision {
  return limit === undefined ? { kind: "reject", reason } : { kind: "reject", reason, limit };
}

/** Decides about each connection, and keeps the counts and rates that the decisions need. */
export class Admission {
  #rules!: AdmissionRules;
  readonly #now: () => number;
  readonly #clients = new Map<string, number>();
  #active = 0;
  #rate: Rate | undefined;
  #clientRates: ClientRates | undefined;
  #penalties: Penalties | undefined;

  /**
   * @param rules The rules.
   * @param now Returns the time, in milliseconds.
   */
  constructor(rules: AdmissionRules, now: () => number) {
    this.#now = now;
    this.setRules(rules, []);
  }

  /**
   * Changes the rules.
   *
   * @param rules The new rules. A rate and the penalties begin anew if their limit has changed.
   * @param open The addresses of the peers that are counted now.
   */
  setRules(rules: AdmissionRules, open: Iterable<Deno.Addr>): void {
    const before = this.#rules as AdmissionRules | undefined;
    const changed = (name: keyof AdmissionRules) => rules[name] !== before?.[name];
    const { acceptRate, acceptRatePerIp, maxPenaltyMs } = this.#rules = rules;
    if (changed("acceptRate")) this.#rate = acceptRate === Infinity ? undefined : new Rate(acceptRate);
    if (changed("acceptRatePerIp")) {
      this.#clientRates = acceptRatePerIp === Infinity ? undefined : new ClientRates(acceptRatePerIp);
    }
    if (changed("maxPenaltyMs")) this.#penalties = maxPenaltyMs === 0 ? undefined : new Penalties(maxPenaltyMs);
    // Without a limit on them, the connections of each client are not counted.
    this.#clients.clear();
    for (const addr of open) this.#count(this.#clientOf(addr));
  }

  /** The number of clients whose connections are counted. */
  get size(): number {
    return this.#clients.size;
  }

  /** Returns how many milliseconds to wait before accepting the next connection; `Infinity` until a connection ends. */
  delay(): number {
    const { maxConnections, atCapacity } = this.#rules;
    if (this.#active >= maxConnections && atCapacity === "wait") return Infinity;
    return this.#rate?.wait(this.#now()) ?? 0;
  }

  /**
   * Decides about a connection that was accepted. An admitted connection is counted until {@linkcode leave}.
   *
   * The connection counts for `acceptRate`, unless its client is above `acceptRatePerIp` or shut out. In that case the
   * next connection, which may be another client's, is accepted at once, so a storm from one address does not use up the
   * common rate.
   */
  enter(addr: Deno.Addr): Decision {
    const now = this.#now();
    const client = this.#clientOf(addr);
    const penalized = this.#penalties?.applies(client, now) === true;
    const tooFast = !penalized && client !== "" && this.#clientRates?.take(client, now) === false;
    if (!tooFast && !penalized) this.#rate?.take(now, 1);
    const newcomer = { addr, connections: this.#clients.get(client) ?? 0, tooFast, penalized };
    const decision = decide(this.#rules, this.#active, newcomer);
    if (decision.kind !== "admit") return decision;
    this.#active++;
    this.#count(client);
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

  /** Notes that a connection was rejected: if that was its client's doing, the client comes nearer to a penalty. */
  rejected(addr: Deno.Addr, reason: RejectReason | "gone"): void {
    if (!BY_CLIENT.has(reason)) return;
    const client = this.#clientOf(addr);
    if (client !== "") this.#penalties?.rejected(client, this.#now());
  }

  #count(client: string): void {
    if (client !== "" && this.#countsClients) this.#clients.set(client, (this.#clients.get(client) ?? 0) + 1);
  }

  get #countsClients(): boolean {
    return this.#rules.maxConnectionsPerIp !== Infinity;
  }

  /** The client of a connection; empty if no rule depends on clients, or if the peer has no IP address. */
  #clientOf(addr: Deno.Addr): string {
    const needed = this.#countsClients || this.#clientRates !== undefined || this.#penalties !== undefined;
    return needed && "hostname" in addr ? clientOf(addr.hostname) : "";
  }
}

/** The reasons for which the client is rejected, and not the state of the server. A denied address stays out anyway. */
const BY_CLIENT: ReadonlySet<RejectReason | "gone"> = new Set<RejectReason>([
  ...["max-connections-per-ip", "accept-rate-per-ip", "refused", "proxy-header", "tls-handshake"] as const,
]);

/** Checks the options of admission, and fills in their defaults. */
export function resolveAdmission(options: AdmissionOptions): AdmissionLimits {
  const { maxConnections = 10_000, maxConnectionsPerIp = Infinity, acceptRate = Infinity } = options;
  const { acceptRatePerIp = Infinity, maxPenaltyMs = 0, atCapacity = "reject", allow = null, deny = null } = options;
  checkWhole("maxConnections", maxConnections, 1, Infinity);
  checkWhole("maxConnectionsPerIp", maxConnectionsPerIp, 1, Infinity);
  checkRate("acceptRate", acceptRate);
  checkRate("acceptRatePerIp", acceptRatePerIp);
  if (maxPenaltyMs !== 0) checkPenalty(maxPenaltyMs);
  checkWord("atCapacity", atCapacity, ["reject", "wait"]);
  const lists = { allow: copyOf(allow), deny: copyOf(deny) };
  return { maxConnections, maxConnectionsPerIp, acceptRate, acceptRatePerIp, maxPenaltyMs, atCapacity, ...lists };
}

/** Copies a list, if it is one: `setLimits` reads it again, and the caller may have changed it for something else. */
function copyOf(list: readonly string[] | null): readonly string[] | null {
  return Array.isArray(list) ? [...list] : list;
}

/**
 * Makes the rules that follow from the options.
 *
 * @throws {RangeError | TypeError} If a list of addresses is wrong.
 */
export function admissionRules({ allow, deny, ...rules }: AdmissionLimits): AdmissionRules {
  return { ...rules, allowed: addressRule(allow, deny) };
}

function addressRule(allow: readonly string[] | null, deny: readonly string[] | null): (addr: Deno.Addr) => boolean {
  // Only `null` is no list: a text that is empty must not let every client in.
  const allowed = allow === null ? undefined : parseCidrs("allow", allow);
  const denied = deny === null ? undefined : parseCidrs("deny", deny);
  return (addr) => !("hostname" in addr) || !denied?.(addr) && (allowed?.(addr) ?? true);
}
