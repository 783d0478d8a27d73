/**
 * Finds out whether engines work with a key, in this version of Deno.
 *
 * @module
 */

import { createSecureContext, type SecureContext } from "node:tls";
import { makeSelfSigned } from "../certificates/self_signed.ts";
import { contextOf, Engine, type EngineOptions, type EngineOwner } from "./engine.ts";
import { type TlsWrapClass, tlsWrapClass } from "./wrap.ts";

/** What each side sends: the most that an engine encrypts at once, so that it spans several records. */
const SENT = Uint8Array.from({ length: 48 * 1024 }, (_, i) => i % 251);

/** Maximum number of times that each side gets what the other has sent; a handshake needs three. */
const MAX_PASSES = 20;

let runs = 0;

/**
 * Performs a handshake between two engines, sends 48 KiB each way, and ends both sides.
 *
 * @param secureContext The context of a server, with its certificate and key.
 * @returns The class that engines are made with; undefined if anything is not as expected: Deno has changed what is
 * beneath `node:tls`, or the key is of no use to TLS.
 */
export function testEngine(secureContext: SecureContext): TlsWrapClass | undefined {
  const sides: Side[] = [];
  try {
    const Wrap = tlsWrapClass();
    if (Wrap === undefined) return undefined;
    const server = new Side(Wrap, { context: contextOf(secureContext, false) });
    sides.push(server);
    // A name of its own: a session that is resumed would not need the server's key.
    const serverName = `self-test-${++runs}.invalid`;
    const client = new Side(Wrap, {
      context: contextOf(createSecureContext({ ca: secureContext.context.cert }), false),
      serverName,
    });
    sides.push(client);
    return converse(server, client) ? Wrap : undefined;
  } catch {
    return undefined;
  } finally {
    for (const { engine } of sides) engine.free();
  }
}

/** Whether the engines of clients work; undefined before the test. */
let works: boolean | undefined;

/** The class that the engines of clients are made with; undefined if engines do not work. It is tested once. */
export function engineForClients(): TlsWrapClass | undefined {
  const Wrap = tlsWrapClass();
  if (Wrap === undefined) return undefined;
  works ??= testEngine(createSecureContext(makeSelfSigned())) !== undefined;
  return works ? Wrap : undefined;
}

function converse(server: Side, client: Side): boolean {
  exchange(server, client);
  for (const side of [server, client]) if (side.engine.encrypt(SENT) !== SENT.length) return false;
  exchange(server, client);
  for (const side of [server, client]) side.engine.end();
  exchange(server, client);
  const { version, cipher } = client.engine.info();
  return server.isDone && client.isDone && /^TLSv1\.[23]$/.test(version) && typeof cipher === "string" &&
    !client.engine.isSessionReused() && client.engine.getPeerX509Certificate() !== undefined &&
    typeof client.engine.ssl.verifyError?.() === "string";
}

/** Passes on what both sides have to send, until neither has more. */
function exchange(server: Side, client: Side): void {
  for (let passes = 0, moved = true; moved && passes < MAX_PASSES; passes++) {
    const sent = client.engine.drain();
    server.engine.feed(sent);
    const answered = server.engine.drain();
    client.engine.feed(answered);
    moved = sent.length + answered.length > 0;
  }
}

/** One side, and what its engine has told. */
class Side implements EngineOwner {
  readonly engine: Engine;
  #secure = false;
  #received = 0;
  #ended = false;
  #wrong = false;

  constructor(Wrap: TlsWrapClass, options: EngineOptions) {
    this.engine = new Engine(Wrap, options, this);
  }

  /** Whether everything has come, in the right order, and nothing else. */
  get isDone(): boolean {
    return this.#ended && !this.#wrong && this.#received === SENT.length;
  }

  established(): void {
    this.#secure = true;
  }

  decrypted(bytes: Uint8Array): void {
    const expected = SENT.subarray(this.#received, this.#received += bytes.length);
    if (!this.#secure || this.#ended || !equal(bytes, expected)) this.#wrong = true;
  }

  peerEnded(): void {
    this.#ended = true;
  }

  failed(): void {
    this.#wrong = true;
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
