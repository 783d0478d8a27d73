/**
 * A stand-in for TLS: a handshake of one record each way, after which every byte is changed. What a test finds unchanged
 * on the wire has left in plain text.
 *
 * @module
 */

import type { TlsCredentialsHandle, TlsInfo, Transport } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { Forwarding } from "../../../internal/api/transport.ts";

/** What the client sends to begin, and what the server answers. */
export const HELLO: Uint8Array<ArrayBuffer> = Uint8Array.of(22, 3, 3, 0, 1, 7);
export const SERVER_HELLO: Uint8Array<ArrayBuffer> = Uint8Array.of(22, 3, 3, 0, 1, 9);

/** What every handshake agrees on. */
export const FAKE_INFO: TlsInfo = { version: "TLSv1.3", cipher: "FAKE", serverName: "example.org", alpn: undefined };

/** Changes every byte, or changes it back. */
export function scramble(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(bytes, (byte) => byte ^ 0xa5);
}

class FakeTransport extends Forwarding {
  #rest: Uint8Array | undefined;
  readonly #closed: () => void;

  constructor(inner: Transport, rest: Uint8Array, closed: () => void) {
    super(inner);
    this.#closed = closed;
    if (rest.length > 0) this.#rest = rest;
  }

  override get tls(): TlsInfo {
    return FAKE_INFO;
  }

  override close(): void {
    this.#closed();
    super.close();
  }

  override async read(into: Uint8Array): Promise<number | null> {
    const part = this.#rest?.subarray(0, into.length);
    if (part !== undefined) into.set(part);
    const count = part?.length ?? await super.read(into);
    this.#rest = this.#rest?.length === part?.length ? undefined : this.#rest?.subarray(part!.length);
    into.set(scramble(into.subarray(0, count ?? 0)));
    return count;
  }

  override write(bytes: Uint8Array): Promise<number> {
    return super.write(scramble(bytes));
  }
}

/** Makes credentials. `before` is awaited at the end of each handshake. */
export function fakeCredentials(
  { handshakeTimeout = 10_000, before = Promise.resolve() }: { handshakeTimeout?: number; before?: Promise<void> } = {},
): TlsCredentialsHandle & { handshakes: number; closed: number; firstBytes: Uint8Array[] } {
  return {
    handshakeTimeout,
    handshakes: 0,
    closed: 0,
    firstBytes: [],
    async accept(transport, firstBytes) {
      this.handshakes++;
      this.firstBytes.push(firstBytes);
      let bytes = firstBytes;
      const buffer = new Uint8Array(64);
      while (bytes.length < HELLO.length) {
        const count = await transport.read(buffer);
        if (count === null) throw new Deno.errors.UnexpectedEof("No hello");
        bytes = Uint8Array.of(...bytes, ...buffer.subarray(0, count));
      }
      if (!HELLO.every((byte, at) => byte === bytes[at])) throw new Error("This is no hello");
      await transport.write(SERVER_HELLO);
      await before;
      return new FakeTransport(transport, bytes.subarray(HELLO.length), () => this.closed++) as FakeTransport & {
        tls: TlsInfo;
      };
    },
  };
}

/** A client's side, after the handshake. */
export async function sendHidden(client: TestClient, text: string): Promise<void> {
  await client.write(scramble(new TextEncoder().encode(text)));
}

/** Reads as many bytes as the text has, and returns them as text. */
export async function readHidden(client: TestClient, length: number): Promise<string> {
  return new TextDecoder().decode(scramble(await client.readBytes(length)));
}
