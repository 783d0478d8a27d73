/**
 * A listener for clients that speak Telnet, as the program `telnet` does from its first Ctrl-C on.
 *
 * The parser of Telnet's commands is in `telnet_filter.ts`.
 *
 * @module
 */

import { checkListener, checkTransferred } from "../../internal/api/check.ts";
import { harmless } from "../../internal/api/errors.ts";
import { IAC, MARK_ANSWER, TelnetFilter } from "./telnet_filter.ts";
import { Forwarding, type Listener } from "../../internal/api/transport.ts";
import { LINE_WORK, TURNS } from "../../internal/time/turns.ts";
import { WrappingListener } from "./wrapping_listener.ts";

/** Maximum bytes of unsent answers before the connection stops reading until they have been sent. */
const MAX_ANSWER_BYTES = 1024;

/** Maximum bytes of one write with a byte 255 in it, which grows to up to twice its length. */
const ESCAPE_BYTES = 4096;

/**
 * Takes Telnet's commands (RFC 854) out of the clients' input, and answers them: each option is refused, and a
 * TIMING-MARK, for which `telnet` waits after a Ctrl-C, is answered (RFC 860) once the server has read what came before
 * it. A data byte 255 is sent twice, in either direction. A subnegotiation of more than 1 KiB ends its connection with
 * reason `transport-error`.
 *
 * Telnet's Synch, which `telnet` sends only on its user's command, leaves a byte 242 in the line: the 255 before it is
 * urgent data, which the sockets leave out.
 *
 * `conn.startTls` does not work on such a connection: the bytes of TLS would be taken for commands.
 *
 * If a server uses several wrappers, this one is the outermost: around TLS, the PROXY protocol and Unix sockets.
 *
 * @param listener The listener that accepts the connections; the result owns it.
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
  return new WrappingListener(listener, (transport) => new TelnetTransport(transport));
}

/** A connection without Telnet's commands. The answers to them go out between the server's writes. */
class TelnetTransport extends Forwarding {
  readonly #filter = new TelnetFilter((bytes) => this.#answers.push(...bytes));
  /** Bytes to be sent before the server's next write. */
  #answers: number[] = [];
  /** Bytes that were read behind a TIMING-MARK and not filtered yet. */
  #unfiltered: Uint8Array | undefined;
  /** Whether the last bytes that the server has read end at a TIMING-MARK. */
  #marked = false;
  /** Settles when the answers are sent; undefined if nothing waits for its turn to send them. */
  #sending: Promise<void> | undefined;
  /** Settles when the last write that was begun has; the transport takes one at a time. */
  #writing: Promise<unknown> = Promise.resolve();
  /** Whether this side has ended: nothing can be sent any more, and no answer is. */
  #ended = false;

  override async read(into: Uint8Array): Promise<number | null> {
    for (;;) {
      // The server reads again, so it has taken the data before the mark.
      if (this.#marked) this.#answers.push(...MARK_ANSWER);
      this.#marked = false;
      await this.#answer();
      const held = this.#unfiltered;
      const count = held === undefined ? await super.read(into) : Math.min(held.length, into.length);
      if (count === null) return null;
      checkTransferred("read", count, into.length);
      const { data, filtered, mark } = this.#filter.filter((held ?? into).subarray(0, count), into);
      this.#marked = mark;
      if (held !== undefined) this.#unfiltered = filtered < held.length ? held.subarray(filtered) : undefined;
      else if (filtered < count) this.#unfiltered = into.slice(filtered, count);
      if (data > 0) return data;
      // A peer that sends only commands must not keep the event loop from other connections.
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
      this.#ended = true;
      await super.closeWrite();
    });
  }

  /** Begins to send the answers, and waits until they are sent if there are many. */
  async #answer(): Promise<void> {
    if (this.#answers.length === 0) return;
    // What waits for its turn sends all answers that there are by then: a peer that does not read, and sends bytes one by
    // one, would make another wait with each of them. If it fails, the server's next read or write fails as well.
    this.#sending ??= harmless(this.#exclusive(() => this.#sendAnswers()));
    if (this.#answers.length > MAX_ANSWER_BYTES) await this.#sending;
  }

  async #sendAnswers(): Promise<void> {
    this.#sending = undefined;
    const answers = this.#answers.splice(0);
    if (answers.length > 0 && !this.#ended) await this.#sendAll(Uint8Array.from(answers));
  }

  async #sendAll(bytes: Uint8Array): Promise<void> {
    for (let sent = 0; sent < bytes.length;) {
      const count = await super.write(bytes.subarray(sent));
      checkTransferred("write", count, bytes.length - sent);
      sent += count;
    }
  }

  #exclusive<T>(send: () => Promise<T>): Promise<T> {
    const sending = this.#writing.then(send);
    this.#writing = sending.catch(() => {});
    return sending;
  }
}
