/**
 * Clients that speak Telnet, as `telnet` does from its first Ctrl-C on.
 *
 * @module
 */

import { checkListener } from "../../internal/api/check.ts";
import { IAC, MARK_ANSWER, TelnetFilter } from "./filter.ts";
import { Forwarding, type Listener, type Transport } from "../../internal/api/transport.ts";
import { LINE_WORK, TURNS } from "../../internal/time/turns.ts";

/** Maximum bytes of answers that wait for the peer to take them; nothing more is read until they have left. */
const MAX_ANSWER_BYTES = 1024;

/** Maximum bytes of one write that has a 255 among them, which makes it up to twice as long. */
const ESCAPE_BYTES = 4096;

/**
 * Takes Telnet's commands (RFC 854) out of what the clients of a listener send, and answers them: each option is refused,
 * and a TIMING-MARK, for which `telnet` waits after a Ctrl-C, is sent back (RFC 860) when what came before it has been
 * handed to the server. A byte 255 is sent twice, in either direction. A subnegotiation of more than 1 KiB ends its
 * connection with reason `transport-error`.
 *
 * Telnet's Synch, which `telnet` sends only when told to, leaves a byte 242 in the line: the 255 before it is urgent data,
 * which the sockets leave out.
 *
 * Put it around all others: TLS, a PROXY header and a Unix socket come before it.
 *
 * @param listener Where the connections come from; the result owns it.
 * @returns The listener for the server.
 * @throws {TypeError} If it is no listener.
 *
 * @example A server for people with `telnet`
 * ```ts
 * import { serve } from "@x/shouty";
 * import { withTelnet } from "@x/shouty/ops";
 * import { assertEquals } from "@std/assert";
 *
 * const listener = withTelnet(Deno.listen({ hostname: "127.0.0.1", port: 0 }));
 * await using server = serve({ listener });
 *
 * const { port } = server.addr as Deno.NetAddr;
 * using conn = await Deno.connect({ port });
 * const [IAC, WONT, DO, ECHO] = [255, 252, 253, 1];
 * await conn.write(Uint8Array.of(IAC, DO, ECHO, ...new TextEncoder().encode("hello\r\n")));
 * await conn.closeWrite();
 * const answer = await new Response(conn.readable).bytes();
 * assertEquals(answer, Uint8Array.of(IAC, WONT, ECHO, ...new TextEncoder().encode("HELLO\n")));
 * ```
 */
export function withTelnet(listener: Listener): Listener {
  checkListener(listener);
  return new TelnetListener(listener);
}

class TelnetListener implements Listener {
  readonly #listener: Listener;

  constructor(listener: Listener) {
    this.#listener = listener;
  }

  get addr(): Deno.Addr {
    return this.#listener.addr;
  }

  async accept(): Promise<Transport> {
    return new TelnetTransport(await this.#listener.accept());
  }

  close(): void | Promise<void> {
    return this.#listener.close();
  }

  ref(): void {
    this.#listener.ref?.();
  }

  unref(): void {
    this.#listener.unref?.();
  }
}

/** A connection without Telnet's commands. Its answers share the way out with what the server writes. */
class TelnetTransport extends Forwarding {
  readonly #filter = new TelnetFilter((bytes) => this.#answers.push(...bytes));
  /** What is to be sent before anything else. */
  #answers: number[] = [];
  /** What was read after a TIMING-MARK. */
  #rest: Uint8Array | undefined;
  #marked = false;
  /** Settles when the outstanding write has; the one way out is used by one at a time. */
  #writing: Promise<unknown> = Promise.resolve();

  override async read(into: Uint8Array): Promise<number | null> {
    for (;;) {
      // The server asks for more, so it has what came before the mark.
      if (this.#marked) this.#answers.push(...MARK_ANSWER);
      this.#marked = false;
      await this.#answer();
      const rest = this.#rest;
      const count = rest === undefined ? await super.read(into) : Math.min(rest.length, into.length);
      if (count === null) return null;
      const { data, filtered, mark } = this.#filter.filter((rest ?? into).subarray(0, count), into);
      this.#marked = mark;
      if (rest !== undefined) this.#rest = filtered < rest.length ? rest.subarray(filtered) : undefined;
      else if (filtered < count) this.#rest = into.slice(filtered, count);
      if (data > 0) return data;
      // A peer that sends nothing but commands must not keep the loop from the others.
      const turn = TURNS.take(Math.max(filtered, LINE_WORK));
      if (turn !== undefined) await turn;
    }
  }

  override write(bytes: Uint8Array): Promise<number> {
    return this.#exclusive(async () => {
      await this.#sendAnswers();
      if (!bytes.includes(IAC)) return await super.write(bytes);
      const part = bytes.subarray(0, ESCAPE_BYTES);
      await this.#sendAll(Uint8Array.from([...part].flatMap((byte) => byte === IAC ? [IAC, IAC] : byte)));
      return part.length;
    });
  }

  override closeWrite(): Promise<void> {
    return this.#exclusive(async () => {
      await this.#sendAnswers();
      await super.closeWrite();
    });
  }

  /** Sends the answers, and waits for that only if the peer has asked for many. */
  async #answer(): Promise<void> {
    if (this.#answers.length === 0) return;
    const sent = this.#exclusive(() => this.#sendAnswers());
    if (this.#answers.length > MAX_ANSWER_BYTES) await sent;
    // A failure shows in the next read or write of the server's, too.
    else sent.catch(() => {});
  }

  async #sendAnswers(): Promise<void> {
    if (this.#answers.length > 0) await this.#sendAll(Uint8Array.from(this.#answers.splice(0)));
  }

  async #sendAll(bytes: Uint8Array): Promise<void> {
    for (let sent = 0; sent < bytes.length;) sent += await super.write(bytes.subarray(sent));
  }

  #exclusive<T>(send: () => Promise<T>): Promise<T> {
    const sending = this.#writing.then(send);
    this.#writing = sending.catch(() => {});
    return sending;
  }
}
