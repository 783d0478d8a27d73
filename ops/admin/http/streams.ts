/**
 * Server-sent events: the status of the server, every second, to a bounded number of clients.
 *
 * @module
 */

import type { ServerResponse } from "node:http";
import type { Clock } from "../../../internal/api/serve_options.ts";
import type { Bounds } from "./bounds.ts";
import { HEADERS, Refusal } from "./exchange.ts";

/** Milliseconds after which a browser that has lost its stream asks again. */
const RETRY_MS = 1000;

/** One client. */
interface Client {
  readonly response: ServerResponse;
  readonly since: number;
  /** When the event, or the end, was sent that the client has not taken yet; undefined if it has taken all. */
  untaken: number | undefined;
}

/** The clients that get events. */
export class Streams {
  readonly #status: () => unknown;
  readonly #clock: Clock;
  readonly #bounds: Bounds;
  readonly #clients = new Set<Client>();
  #cancelTimer: (() => void) | undefined;

  /**
   * @param status Returns what an event carries.
   * @param clock The source of time.
   * @param bounds The port's bounds.
   */
  constructor(status: () => unknown, clock: Clock, bounds: Bounds) {
    this.#status = status;
    this.#clock = clock;
    this.#bounds = bounds;
  }

  /** Throws if there is no room for another client. */
  checkRoom(): void {
    const { streams } = this.#bounds;
    if (this.#clients.size < streams) return;
    throw new Refusal(503, `Cannot send events: ${streams} clients get them already`, { "Retry-After": "10" });
  }

  /** Sends events from now on. */
  add(response: ServerResponse): void {
    const client: Client = { response, since: this.#clock.now(), untaken: undefined };
    this.#clients.add(client);
    response.once("close", () => this.#delete(client));
    response.writeHead(200, { ...HEADERS, "Content-Type": "text/event-stream", "Connection": "close" });
    response.write(`retry: ${RETRY_MS}\n\n`);
    this.#send(client, this.#event());
    this.#cancelTimer ??= this.#clock.setTimer(this.#tick, this.#bounds.eventMs, false);
  }

  /** Sends a last event, and ends all streams. */
  close(): void {
    if (this.#clients.size === 0) return;
    let event: string | undefined;
    try {
      event = this.#event();
    } catch {
      // They end without it.
    }
    // One whose time was over has ended already, and its client has not taken that yet.
    for (const { response } of [...this.#clients]) if (!response.writableEnded) response.end(event);
  }

  readonly #tick = (): void => {
    try {
      this.#cancelTimer = this.#clock.setTimer(this.#tick, this.#bounds.eventMs, false);
      this.#sendAll(this.#clock.now());
    } catch {
      // The status, or the clock, has failed. The clients ask again, and are told why as far as that is known.
      for (const { response } of [...this.#clients]) response.destroy();
    }
  };

  #sendAll(now: number): void {
    let event: string | undefined;
    for (const client of [...this.#clients]) {
      const { response, since, untaken } = client;
      // At most one event waits for a client: what it would read later is old by then. The stream's end waits as one does.
      if (untaken !== undefined) {
        if (now - untaken >= this.#bounds.eventTakenMs) response.destroy();
      } else if (now - since < this.#bounds.streamMs) this.#send(client, event ??= this.#event());
      else {
        client.untaken = now;
        response.end();
      }
    }
  }

  /** All clients get the same text: counting thousands of connections once a second is enough. */
  #event(): string {
    return `event: status\ndata: ${JSON.stringify(this.#status())}\n\n`;
  }

  #send(client: Client, event: string): void {
    client.untaken = this.#clock.now();
    client.response.write(event, () => client.untaken = undefined);
  }

  #delete(client: Client): void {
    this.#clients.delete(client);
    if (this.#clients.size > 0) return;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }
}
