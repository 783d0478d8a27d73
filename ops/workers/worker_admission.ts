/**
 * A worker's side of admission: it asks the main isolate, and ends the connections that are rejected.
 *
 * @module
 */

import { type Framing, resolveFraming } from "../../internal/api/framing.ts";
import { defaultLastWords, type ServeOptions } from "../../internal/api/serve_options.ts";
import { closeQuietly, type Transport } from "../../internal/api/transport.ts";
import { isAtOnce } from "../../internal/admission/entrance.ts";
import { Rejects } from "../../internal/admission/rejects.ts";
import { encodeLine } from "../../internal/lines/text.ts";
import { SYSTEM_CLOCK } from "../../internal/time/clock.ts";
import type { Admitter } from "./asking_listener.ts";
import type { Verdict } from "./wire.ts";

/** Maximum number of connections that one listener has asked about, unless connections may have to wait. */
const MOST = 64;

/** Asks the main isolate. */
export class WorkerAdmission implements Admitter {
  readonly #send: (key: number, addr: Deno.Addr) => void;
  readonly #lastWords: NonNullable<ServeOptions["lastWords"]>;
  readonly #framing: ReturnType<typeof resolveFraming>;
  readonly #rejects = new Rejects(SYSTEM_CLOCK);
  readonly #asked = new Map<number, (verdict: Verdict) => void>();
  #key = 0;
  /** Whether connections may have to wait: then each listener accepts only the one that does. */
  waits = false;
  #held = false;
  #released = Promise.withResolvers<void>();

  /**
   * @param send Sends the question.
   * @param hooks The function that words the last line of a rejected connection.
   * @param framing How lines are framed.
   */
  constructor(
    send: (key: number, addr: Deno.Addr) => void,
    { lastWords = defaultLastWords }: Pick<ServeOptions, "lastWords">,
    framing: Partial<Framing> | undefined,
  ) {
    this.#send = send;
    this.#lastWords = lastWords;
    this.#framing = resolveFraming(framing);
  }

  get most(): number {
    return this.waits ? 1 : MOST;
  }

  /** Whether other workers are to accept the next connections. */
  set held(held: boolean) {
    this.#held = held;
    if (held) return;
    this.#released.resolve();
    this.#released = Promise.withResolvers();
  }

  get turn(): Promise<void> | undefined {
    return this.#held ? this.#released.promise : undefined;
  }

  ask(addr: Deno.Addr): Promise<Verdict> {
    const { promise, resolve } = Promise.withResolvers<Verdict>();
    const key = this.#key++;
    this.#asked.set(key, resolve);
    this.#send(key, { ...addr });
    return promise;
  }

  /** The main isolate has answered. */
  answer(key: number, verdict: Verdict): void {
    this.#asked.get(key)?.(verdict);
    this.#asked.delete(key);
  }

  reject(transport: Transport, { reason, limit = 0 }: Parameters<Admitter["reject"]>[1]): void {
    if (isAtOnce(reason)) return closeQuietly(transport);
    const word = this.#wordFor(reason, limit);
    this.#rejects.add(transport, word === null ? "" : encodeLine(word, this.#framing, true));
  }

  /** Ends the connections that have been rejected, and whose peers still read. */
  close(): void {
    this.#rejects.close();
  }

  #wordFor(reason: Parameters<Admitter["reject"]>[1]["reason"], limit: number): string | null {
    try {
      const word = this.#lastWords(reason, limit);
      return typeof word === "string" ? word : null;
    } catch {
      return null;
    }
  }
}
