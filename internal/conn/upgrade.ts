/**
 * Beginning TLS on a connection that has begun in plain text.
 *
 * @module
 */

import { checkMethods, checkOptions, checkTimeout, checkTransport } from "../api/check.ts";
import { ConnectionClosedError } from "../api/errors.ts";
import type { CloseReason } from "../api/reasons.ts";
import {
  closeQuietly,
  HANDSHAKE_TIMEOUT,
  type TlsCredentialsHandle,
  type TlsInfo,
  type Transport,
} from "../api/transport.ts";
import type { Outbox } from "../io/outbox.ts";
import type { Reader } from "../io/reader.ts";
import { TakenRead } from "../io/taken_read.ts";
import type { InputBuffer } from "../lines/input_buffer.ts";
import type { LineCutter } from "../lines/line_cutter.ts";
import { MisdirectedTransport, TlsRecord } from "../lines/misdirected.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";
import type { Input } from "../reads/input.ts";

/** The connection, as an upgrade sees it. */
export interface UpgradeOwner {
  /** Why there is no more input; undefined while there may be more. */
  readonly ending: CloseReason | undefined;
  /** Why nothing can be written any more; undefined while the connection is open. */
  readonly writingEnded: CloseReason | undefined;
  abort(reason: CloseReason, error?: unknown): void;
  /** TLS cannot begin. What was written meanwhile must not leave in plain text. */
  notUpgraded(reason: CloseReason, error?: unknown): void;
}

/** The parts of the connection that an upgrade uses. */
interface Upgradable {
  transport: Transport;
  readonly reader: Reader;
  readonly outbox: Outbox;
  readonly clocks: ConnectionClocks;
  readonly cutter: LineCutter;
  readonly input: Input | undefined;
  readAhead(): Promise<void>;
}

/** Begins TLS, once. Meanwhile the handler can read nothing, and what it writes waits. */
export class Upgrade {
  readonly #parts: Upgradable;
  readonly #owner: UpgradeOwner;
  readonly #credentials: TlsCredentialsHandle;
  readonly #handshakeTimeout: number;
  /** Whether it is under way. An end of the connection cannot be graceful meanwhile: it would be in plain text. */
  active = false;

  /**
   * @param parts The parts of the connection.
   * @param owner The connection.
   * @param credentials The certificate and the key.
   */
  constructor(parts: Upgradable, owner: UpgradeOwner, credentials: TlsCredentialsHandle) {
    checkMethods("credentials", credentials, "credentials from tlsCredentials", ["accept"]);
    const { handshakeTimeout = HANDSHAKE_TIMEOUT } = credentials;
    checkTimeout("handshakeTimeout", handshakeTimeout);
    this.#parts = parts;
    this.#owner = owner;
    this.#credentials = credentials;
    this.#handshakeTimeout = handshakeTimeout;
  }

  /** Sends what was written, performs the handshake, and puts TLS beneath the reader and the outbox. */
  async run(): Promise<TlsInfo> {
    const { reader, outbox, input, transport } = this.#parts;
    const givenUp = input?.reserve();
    this.active = true;
    // From now on a ClientHello is not misdirected, also if a read is outstanding.
    if (transport instanceof MisdirectedTransport) transport.expectTls();
    // Takes plain text that has come and was not read yet, so that it counts as an injection.
    if (!reader.over) this.#parts.readAhead();
    try {
      await outbox.hold();
      // Its end would start the clock of a handler at work, and the handshake has its own time.
      await givenUp;
      const ended = this.#owner.writingEnded ?? this.#owner.ending;
      // At a limit or a clock a handler may still write, but what it has written since the call is held back.
      if (ended !== undefined && ended !== "end") throw this.#failed(ended);
      return await this.#handshake();
    } finally {
      this.active = false;
      outbox.release();
      input?.release();
    }
  }

  async #handshake(): Promise<TlsInfo> {
    const { reader, clocks, cutter } = this.#parts;
    // If the cutter discards a long line, that line began in plain text behind the command, and the cutter would look for
    // its end in what is decrypted.
    if (cutter.skipping || !beginsTls(reader.input)) throw this.#failed("starttls-injection");
    // What comes from now on is encrypted, so the reader must not read ahead.
    reader.pinned = true;
    clocks.limitRead(this.#handshakeTimeout);
    clocks.wait(0);
    try {
      const firstBytes = await this.#takeInput();
      const tls = await this.#credentials.accept(this.#parts.transport, firstBytes);
      this.#install(tls);
      return tls.tls;
    } catch (error) {
      throw this.#failed("tls-handshake", error);
    } finally {
      reader.pinned = reader.answersFirst = false;
      clocks.limitRead(undefined);
      clocks.rest();
      clocks.work();
    }
  }

  /** Takes all input that has come; if there is none, that of the outstanding read. */
  async #takeInput(): Promise<Uint8Array> {
    const { reader } = this.#parts;
    this.#checkLimit();
    const read = reader.outstanding;
    // While its input is pinned, the reader notes no read by itself.
    if (read !== undefined && reader.input.size === 0) reader.received(await read);
    this.#checkLimit();
    this.#checkOpen();
    const firstBytes = reader.input.take(reader.input.size);
    // A read may still be outstanding. It is given away at once: otherwise the reader could get its bytes meanwhile.
    const rest = reader.giveAwayRead();
    if (rest !== undefined) this.#parts.transport = new TakenRead(this.#parts.transport, rest);
    return firstBytes;
  }

  /** Ends the connection if the rest of a ClientHello has been dropped: the client would wait for an answer in vain. */
  #checkLimit(): void {
    if (!this.#parts.reader.input.overLimit) return;
    this.#owner.abort("byte-limit");
    throw closedError("byte-limit");
  }

  #install(tls: Transport): void {
    // The credentials may be of the caller's own making. With anything else, the connection would lose its transport, or
    // go on in plain text.
    checkTransport("what accept returned", tls);
    checkOptions("the tls of what accept returned", tls.tls);
    // The connection may have ended just before, and has closed only the transport that it knew.
    if (this.#owner.writingEnded !== undefined) closeQuietly(tls);
    this.#checkOpen();
    this.#parts.transport = tls;
  }

  /** The time for the handshake is up. */
  late(): void {
    const error = new Deno.errors.TimedOut(`No TLS handshake within ${this.#handshakeTimeout} ms`);
    this.#owner.abort("tls-handshake", error);
  }

  #checkOpen(): void {
    const { writingEnded } = this.#owner;
    if (writingEnded !== undefined) throw closedError(writingEnded);
  }

  /** Ends the connection, and returns the error for the handler. */
  #failed(reason: CloseReason, error?: unknown): Error {
    this.active = false;
    this.#owner.notUpgraded(reason, error);
    return closedError(this.#owner.writingEnded ?? reason, error);
  }
}

/** Whether the bytes that have come can be the beginning of a TLS handshake; no bytes can. */
function beginsTls({ bytes, start, end }: InputBuffer): boolean {
  const record = new TlsRecord();
  for (let at = start; at < end; at++) {
    const begins = record.take(bytes[at]);
    if (begins !== undefined) return begins;
  }
  return true;
}

function closedError(reason: CloseReason, cause?: unknown): ConnectionClosedError {
  return new ConnectionClosedError(reason, "begin TLS", cause === undefined ? {} : { cause });
}
