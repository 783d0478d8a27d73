/**
 * Who gets in, decided in one place.
 *
 * @module
 */

import { clientOf } from "./ip.ts";
import { Rate } from "./rate.ts";
import type { AdmissionRejectReason } from "./reasons.ts";

/** The rules of admission. */
export interface AdmissionRules {
  readonly maxConnections: number;
  readonly maxConnectionsPerIp: number;
  /** New connections per second, and so many at once after a quiet second. */
  readonly acceptRate: number;
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
  /** Who comes, once it is accepted: its address, and how many connections the same client has. */
  readonly comer?: { readonly addr: Deno.Addr; readonly connections: number };
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
  const { maxConnections, maxConnectionsPerIp, atCapacity, welcome } = rules;
  const full = active >= maxConnections;
  if (comer === undefined) {
    if (full && atCapacity === "wait") return { kind: "wait", ms: Infinity };
    return dueMs > 0 ? { kind: "wait", ms: dueMs } : ADMIT;
  }
  const { addr, connections } = comer;
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

  /**
   * @param rules The rules.
   * @param now The time, in milliseconds.
   */
  constructor(rules: AdmissionRules, now: () => number) {
    this.#rules = rules;
    this.#now = now;
    if (rules.acceptRate !== Infinity) this.#rate = new Rate(rules.acceptRate);
  }

  /** How many milliseconds to wait before the next connection is accepted; `Infinity` until one leaves. */
  delay(): number {
    const decision = decide(this.#rules, { active: this.#active, dueMs: this.#rate?.wait(this.#now()) ?? 0 });
    return decision.kind === "wait" ? decision.ms : 0;
  }

  /** A connection was accepted from there: lets it in, which counts it until it leaves, or says why not. */
  enter(addr: Deno.Addr): Decision {
    this.#rate?.take(this.#now(), 1);
    const client = this.#clientOf(addr);
    const connections = this.#clients.get(client) ?? 0;
    const comer = { addr, connections };
    const decision = decide(this.#rules, { active: this.#active, dueMs: 0, comer });
    if (decision.kind !== "admit") return decision;
    this.#active++;
    if (client !== "") this.#clients.set(client, connections + 1);
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

  /** Whom a connection counts for; nobody, where clients are not counted or have no address. */
  #clientOf(addr: Deno.Addr): string {
    const counted = this.#rules.maxConnectionsPerIp !== Infinity && "hostname" in addr;
    return counted ? clientOf(addr.hostname) : "";
  }
}
