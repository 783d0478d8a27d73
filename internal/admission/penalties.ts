/**
 * Clients that keep being rejected, and for how long each is shut out.
 *
 * @module
 */

/**
 * The number of rejections that have no penalty: a client may be unlucky, or have a bug that is soon mended. Connections
 * that are admitted in between do not change the count: behind one address there may be an offender among many others.
 */
const FREE_REJECTIONS = 10;

/** The first penalty, in milliseconds; each further rejection doubles it. */
const FIRST_MS = 1000;

/** Maximum number of clients that are remembered; the one whose last rejection is the oldest is forgotten first. */
const MAX_CLIENTS = 10_000;

/** What is known of one client. */
interface Offender {
  readonly rejections: number;
  /** When the client is let in again. */
  readonly until: number;
  /** When its rejections are forgotten. */
  readonly forgetAt: number;
}

/**
 * Counts the rejections of each client. From the eleventh on, each shuts the client out: first for a second, then for
 * twice as long each time. A client is forgiven when it has not been rejected for as long as the maximum after that.
 */
export class Penalties {
  readonly #maxMs: number;
  /** By client; the one that was rejected last is at the end. */
  readonly #offenders = new Map<string, Offender>();

  /** @param maxMs Maximum penalty, in milliseconds. */
  constructor(maxMs: number) {
    this.#maxMs = maxMs;
  }

  /** The number of clients that take memory. */
  get size(): number {
    return this.#offenders.size;
  }

  /** Whether a client is shut out. A connection that is rejected for that does not make the penalty longer. */
  applies(client: string, now: number): boolean {
    return now < (this.#offenders.get(client)?.until ?? -Infinity);
  }

  /** Counts a rejection of a client. */
  rejected(client: string, now: number): void {
    this.#forget(now);
    const known = this.#offenders.get(client);
    const rejections = known === undefined || known.forgetAt <= now ? 1 : known.rejections + 1;
    const beyond = rejections - FREE_REJECTIONS;
    const penalty = beyond > 0 ? Math.min(this.#maxMs, FIRST_MS * 2 ** (beyond - 1)) : 0;
    this.#offenders.delete(client);
    this.#offenders.set(client, { rejections, until: now + penalty, forgetAt: now + penalty + this.#maxMs });
  }

  #forget(now: number): void {
    for (const [client, { forgetAt }] of this.#offenders) {
      if (forgetAt > now && this.#offenders.size < MAX_CLIENTS) return;
      this.#offenders.delete(client);
    }
  }
}
