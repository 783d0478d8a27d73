/**
 * Beginning TLS in the cases: credentials that record what passes through them, and the calls of `startTls`.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { Conn, TlsCredentialsHandle, TlsInfo, Transport } from "@x/shouty";
import { Forwarding } from "../../../internal/api/transport.ts";
import { FAKE_INFO, HELLO, scramble, SERVER_HELLO } from "../../../tests/kit/fakes/fake_tls.ts";
import { fc } from "../../../tests/kit/property.ts";
import { join, type WatchedTransport } from "./watched.ts";

/** What a handler does between the call of `startTls` and its end. */
const MEANWHILE = ["write", "flush", "close", "abort", "deadline", "limits"] as const;

/** A step that begins TLS. */
export interface TlsStep {
  do: "tls";
  /** The number of writes just before, which are not awaited. */
  before: number;
  meanwhile: (typeof MEANWHILE[number])[];
  handshakeTimeout: number;
  /** Whether the end of the handshake waits until the clock moves. */
  slow: boolean;
}

/** Any step that begins TLS. */
export const anyTlsStep: fc.Arbitrary<TlsStep> = fc.record({
  do: fc.constant("tls" as const),
  before: fc.constantFrom(0, 0, 1, 2),
  meanwhile: fc.oneof(
    fc.constant<TlsStep["meanwhile"]>([]),
    fc.constant<TlsStep["meanwhile"]>(["write"]),
    fc.array(fc.constantFrom(...MEANWHILE), { maxLength: 3 }),
  ),
  handshakeTimeout: fc.constantFrom(50, 2000, Infinity, Infinity),
  slow: fc.constantFrom(false, false, false, true),
});

/** What a handler does besides reading and TLS. */
export interface Acts {
  /** Writes a word of a name, without waiting. */
  write(name: string): void;
  /** Flushes, and tells whether everything was sent. */
  flush(): Promise<boolean>;
  /** Waits until the clock moves. */
  tick(): Promise<void>;
}

/** The name of what is written after the call of `startTls`. */
export const SECRET = "secret";

/** What passed through one handshake, and through the connection after it. */
export class Recording implements TlsCredentialsHandle {
  readonly handshakeTimeout: number;
  readonly #conn: Conn;
  /** What the transport of the handshake leads to. */
  readonly #wire: WatchedTransport;
  readonly #done: () => Promise<void>;
  /** The bytes on the wire at the start of the handshake; undefined before it. */
  plain: { input: Uint8Array; output: Uint8Array } | undefined;
  firstBytes: Uint8Array = new Uint8Array();
  /** Bytes that were read and written under TLS, before they were hidden. */
  readonly #input: Uint8Array[] = [];
  readonly #output: Uint8Array[] = [];
  succeeded = false;

  constructor(conn: Conn, wire: WatchedTransport, handshakeTimeout: number, done: () => Promise<void>) {
    this.#conn = conn;
    this.#wire = wire;
    this.handshakeTimeout = handshakeTimeout;
    this.#done = done;
  }

  async accept(transport: Transport, firstBytes: Uint8Array): Promise<Transport & { readonly tls: TlsInfo }> {
    const { input, output } = this.#wire;
    // A read may be outstanding that has brought more already, which is the handshake's.
    this.plain = { input: input.subarray(0, this.#conn.stats().bytesIn - firstBytes.length), output };
    this.firstBytes = firstBytes;
    let bytes = firstBytes;
    const buffer = new Uint8Array(64);
    while (bytes.length < HELLO.length) {
      this.#checkOpen();
      const count = await transport.read(buffer);
      if (count === null) throw new Deno.errors.UnexpectedEof("No hello");
      bytes = Uint8Array.of(...bytes, ...buffer.subarray(0, count));
    }
    if (!HELLO.every((byte, at) => byte === bytes[at])) throw new Error("This is no hello");
    for (let sent = 0, count; sent < SERVER_HELLO.length; sent += count) {
      this.#checkOpen();
      count = await transport.write(SERVER_HELLO.subarray(sent));
      if (count === 0) throw new Deno.errors.WriteZero("Cannot write: the transport takes no bytes");
    }
    await this.#done();
    this.succeeded = true;
    const record = { input: this.#input, output: this.#output };
    return new Hidden(transport, this.#wire, bytes.subarray(HELLO.length), record) as Hidden & { tls: TlsInfo };
  }

  /** What the message of a failed case shows of it. */
  toJSON(): unknown {
    const { succeeded, firstBytes, plain } = this;
    return { succeeded, firstBytes: firstBytes.length, plainIn: plain?.input.length, plainOut: plain?.output.length };
  }

  /** Whether the whole hello has come where the handshake begins. */
  get hasHello(): boolean {
    const { length } = this.plain!.input;
    const hello = this.#wire.input.subarray(length, length + HELLO.length);
    return HELLO.every((byte, at) => byte === hello[at]);
  }

  /** The connection may have been closed between two calls of the transport. */
  #checkOpen(): void {
    if (this.#wire.closes > 0) throw new Deno.errors.Interrupted("The connection was closed");
  }

  /** Checks that the handshake got what had come, and nothing else. */
  checkFirstBytes(wire: Uint8Array): void {
    const { length } = this.plain!.input;
    assertEquals(this.firstBytes, wire.slice(length, length + this.firstBytes.length), "The first bytes");
  }

  /** Bytes as the reader gets them: in plain text, the first ones of the handshake, and those under TLS. */
  get input(): Uint8Array {
    return join([this.plain!.input, this.firstBytes, ...this.#input]);
  }

  /**
   * Bytes as the outbox sends them.
   *
   * @throws {AssertionError} If the wire has others.
   */
  outputOf(wire: Uint8Array): Uint8Array {
    const { output } = this.plain!;
    const rest = wire.subarray(output.length);
    const hello = SERVER_HELLO.subarray(0, Math.min(rest.length, SERVER_HELLO.length));
    assertEquals(wire, join([output, hello, ...this.#output.map(scramble)]), "Something has left in plain text");
    return join([output, ...this.#output]);
  }
}

/** The bytes of a connection under TLS; each byte is changed on the wire. */
class Hidden extends Forwarding {
  readonly #wire: WatchedTransport;
  #rest: Uint8Array;
  readonly #record: { readonly input: Uint8Array[]; readonly output: Uint8Array[] };

  constructor(
    inner: Transport,
    wire: WatchedTransport,
    rest: Uint8Array,
    record: { input: Uint8Array[]; output: Uint8Array[] },
  ) {
    super(inner);
    this.#wire = wire;
    this.#rest = rest;
    this.#record = record;
  }

  override get tls(): TlsInfo {
    return FAKE_INFO;
  }

  /** The connection may have ended, and closed the wire, just before the handshake succeeded. */
  override close(): void {
    if (this.#wire.closes === 0) super.close();
  }

  override async read(into: Uint8Array): Promise<number | null> {
    const part = this.#rest.subarray(0, into.length);
    this.#rest = this.#rest.subarray(part.length);
    into.set(part);
    const count = part.length > 0 ? part.length : await super.read(into);
    if (count === null) return null;
    into.set(scramble(into.subarray(0, count)));
    this.#record.input.push(into.slice(0, count));
    return count;
  }

  override async write(bytes: Uint8Array): Promise<number> {
    const before = bytes.slice();
    const count = await super.write(scramble(bytes));
    this.#record.output.push(before.subarray(0, count));
    return count;
  }
}

/** Does what a step says; returns what the handshake was, and the error of `startTls`. */
export async function beginTls(
  conn: Conn,
  wire: WatchedTransport,
  { before, meanwhile, handshakeTimeout, slow }: TlsStep,
  acts: Acts,
): Promise<{ recording: Recording; error: unknown }> {
  const recording = new Recording(conn, wire, handshakeTimeout, slow ? acts.tick : () => Promise.resolve());
  for (let i = 0; i < before; i++) acts.write("before");
  const upgraded = conn.startTls(recording);
  const flushes = meanwhile.map((what) => doMeanwhile(conn, what, acts));
  const error = await upgraded.then(() => undefined, (error) => error);
  // Nothing is written meanwhile.
  await Promise.all(flushes);
  return { recording, error };
}

function doMeanwhile(conn: Conn, what: typeof MEANWHILE[number], acts: Acts): Promise<unknown> | undefined {
  if (what === "flush") return acts.flush();
  if (what === "write") acts.write(SECRET);
  else if (what === "close") conn.close();
  else if (what === "abort") conn.writable.abort();
  else if (what === "deadline") conn.setDeadline(50);
  else conn.setLimits({ idleTimeout: 1, lineTimeout: 1 });
}
