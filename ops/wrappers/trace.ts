/**
 * A trace of the bytes of each connection, for developers.
 *
 * @module
 */

import { checkFunction, checkListener, checkOptions, checkWhole } from "../../internal/api/check.ts";
import { count, escapeUnsafe, harmless, ignoreErrors } from "../../internal/api/errors.ts";
import { formatAddr, Forwarding, type Listener, type Transport } from "../../internal/api/transport.ts";
import { WrappingListener } from "./wrapping_listener.ts";

/** What happened on a traced connection. */
export interface TraceEntry {
  /** The connection's number: from 1, in the order of acceptance, over all traces of the process. It is not `conn.id`. */
  readonly id: number;
  /** The peer's address, if it is known; it tells which `conn.id` this is, except on a Unix socket. */
  readonly remoteAddr: Deno.Addr | undefined;
  /**
   * `open`: the connection was accepted. `read`, `write`: bytes came, or were taken for sending. `end`: the peer has ended
   * its side. `close-write`: this side was ended. `close`, `reset`: the connection was closed. `error`: a read, a write or
   * `closeWrite` has failed; `text` is the error.
   */
  readonly type: "open" | "read" | "write" | "end" | "close-write" | "close" | "reset" | "error";
  /** The number of bytes that were read or written; 0 for any other type. */
  readonly bytes: number;
  /**
   * The bytes that may be shown, in printable ASCII: `\n`, `\r`, `\t`, `\\`, `\"`, and `\x9f` for any other byte. It
   * cannot forge a line.
   */
  readonly text: string;
  /** The number of bytes that `text` leaves out at the end. */
  readonly leftOut: number;
}

/** Options of {@linkcode withTrace}. */
export interface TraceOptions {
  /**
   * Called with each entry, while the connection waits. An error that it throws is ignored. It must not write to a traced
   * connection.
   */
  write: (entry: TraceEntry) => void;
  /**
   * Returns what may be shown of the bytes of one read or write; by default all of them. It gets a copy, and the entry as
   * it would be written, with an empty text. If it throws, or returns anything else, such as a promise, nothing is shown
   * but `[redact failed]`.
   *
   * Reads and writes are cut where the network cuts them: what is to be hidden can come in several parts.
   */
  redact?: ((bytes: Uint8Array<ArrayBuffer>, entry: TraceEntry) => Uint8Array | string) | undefined;
  /**
   * Maximum bytes that are shown of one read or write.
   *
   * @default {256}
   */
  maxShownBytes?: number | undefined;
}

/**
 * Traces what goes over each connection of a listener. It is for developers: **a trace holds everything that clients send,
 * passwords included**, unless `redact` hides it.
 *
 * It sees the bytes as the listener gives them: around `listenTls` and `proxyProtocol` what the handler gets, within them
 * what is on the wire. After `conn.startTls` the bytes are encrypted. It costs a call for each read and write, and for
 * `redact` a copy.
 *
 * @param listener The listener that accepts the connections; the result owns it.
 * @param options Where the entries go, and what they may show.
 * @returns The listener for the server.
 * @throws {RangeError | TypeError} If an option is wrong.
 *
 * @example A trace without passwords
 * ```ts
 * import { formatTrace, withTrace } from "@x/shouty/ops";
 * import { serve } from "@x/shouty";
 * import { MemoryListener } from "@x/shouty/testing";
 * import { assertEquals } from "@std/assert";
 *
 * const lines: string[] = [];
 * const decoder = new TextDecoder();
 * const memory = new MemoryListener();
 * const listener = withTrace(memory, {
 *   write: (entry) => lines.push(formatTrace(entry).replace(/^\d+ \S+ /, "")),
 *   redact: (bytes) => decoder.decode(bytes).replace(/(?<=PASS ).+/g, "[hidden]"),
 * });
 * await using _server = serve({ listener });
 *
 * const client = memory.connect();
 * await client.write("PASS secret\n");
 * assertEquals(await client.readLine(), "PASS SECRET");
 * assertEquals(lines.slice(0, 2), ["open", String.raw`read 12 bytes "PASS [hidden]\n"`]);
 * client.close();
 * ```
 */
export function withTrace(listener: Listener, options: TraceOptions): Listener {
  checkListener(listener);
  checkOptions("withTrace options", options);
  const { write, redact, maxShownBytes = 256 } = options;
  checkFunction("write", write);
  checkFunction("redact", redact, true);
  checkWhole("maxShownBytes", maxShownBytes, 0, Infinity);
  return new WrappingListener(
    listener,
    (transport) => new TracedTransport(transport, { write, redact, maxShownBytes }),
  );
}

/**
 * Words an entry as one line: `7 127.0.0.1:51234 read 6 bytes "hello\n"`.
 *
 * @param entry The entry.
 * @returns The line, in printable characters.
 */
export function formatTrace({ id, remoteAddr, type, bytes, text, leftOut }: TraceEntry): string {
  const peer = remoteAddr === undefined ? "unknown" : formatAddr(remoteAddr);
  const shown = type === "error"
    ? `: ${text}`
    : type === "read" || type === "write"
    ? ` ${count(bytes, "byte")} "${text}"${leftOut > 0 ? ` and ${leftOut} more` : ""}`
    : "";
  return `${id} ${peer} ${type}${shown}`;
}

type Redact = NonNullable<TraceOptions["redact"]>;
type Settings = { write: TraceOptions["write"]; redact: Redact | undefined; maxShownBytes: number };

const FAILED = "[redact failed]";
const ENCODER = new TextEncoder();
let lastId = 0;

class TracedTransport extends Forwarding {
  readonly #options: Settings;
  readonly #id = ++lastId;
  readonly #remoteAddr: Deno.Addr | undefined;

  constructor(inner: Transport, options: Settings) {
    super(inner);
    this.#options = options;
    this.#remoteAddr = addressOf(inner);
    this.#tell("open");
  }

  override async read(into: Uint8Array): Promise<number | null> {
    const count = await this.#watched(super.read(into));
    if (count === null) this.#tell("end");
    else this.#tellBytes("read", into.subarray(0, count));
    return count;
  }

  override async write(bytes: Uint8Array): Promise<number> {
    const count = await this.#watched(super.write(bytes));
    this.#tellBytes("write", bytes.subarray(0, count));
    return count;
  }

  override async closeWrite(): Promise<void> {
    await this.#watched(super.closeWrite());
    this.#tell("close-write");
  }

  protected override ending(how: "close" | "reset"): void {
    this.#tell(how);
  }

  async #watched<T>(call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (error) {
      ignoreErrors(() => this.#tell("error", escapeUnsafe(error instanceof Error ? error.message : String(error))));
      throw error;
    }
  }

  #tellBytes(type: "read" | "write", bytes: Uint8Array): void {
    const { redact, maxShownBytes } = this.#options;
    const shown = redact === undefined ? bytes : this.#redacted(redact, type, bytes);
    const part = shown.subarray(0, maxShownBytes);
    this.#tell(type, escapeBytes(part), bytes.length, shown.length - part.length);
  }

  #redacted(redact: Redact, type: "read" | "write", bytes: Uint8Array): Uint8Array {
    try {
      // A copy, which `slice` does not return of a `Buffer`.
      const shown = redact(new Uint8Array(bytes), this.#entry(type, "", bytes.length, 0));
      if (shown as unknown instanceof Promise) harmless(shown as unknown as Promise<unknown>);
      if (typeof shown === "string") return ENCODER.encode(shown);
      return shown instanceof Uint8Array ? shown : ENCODER.encode(FAILED);
    } catch {
      return ENCODER.encode(FAILED);
    }
  }

  #tell(type: TraceEntry["type"], text = "", bytes = 0, leftOut = 0): void {
    // A trace that cannot be written must not end the connection.
    ignoreErrors(() => this.#options.write(this.#entry(type, text, bytes, leftOut)));
  }

  #entry(type: TraceEntry["type"], text: string, bytes: number, leftOut: number): TraceEntry {
    return { id: this.#id, remoteAddr: this.#remoteAddr, type, bytes, text, leftOut };
  }
}

/** The peer's address; a transport may not know it any more once its peer is gone. */
function addressOf(transport: Transport): Deno.Addr | undefined {
  try {
    return transport.remoteAddr;
  } catch {
    return undefined;
  }
}

const NAMED: Readonly<Record<number, string>> = { 9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\" };

function escapeBytes(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    text += NAMED[byte] ??
      (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`);
  }
  return text;
}
