/**
 * The token of the admin port: comparing it, and the sessions of those who have signed in with it.
 *
 * @module
 */

import type { Clock } from "../../../internal/api/serve_options.ts";
import { Attempts } from "./attempts.ts";

/** Minimum and maximum length of a token, in characters. */
const LEAST_TOKEN = 16;
const MOST_TOKEN = 1024;

/** What a token has to be, to be read after "expected". */
export const TOKEN_ALLOWED: string = `${LEAST_TOKEN} to ${MOST_TOKEN} visible characters of ASCII`;

/** How long a session lasts, in seconds. */
const SESSION_S = 12 * 60 * 60;

const ENCODER = new TextEncoder();

/** Whether a text can be a token. */
export function isToken(text: string): boolean {
  return /^[!-~]+$/.test(text) && text.length >= LEAST_TOKEN && text.length <= MOST_TOKEN;
}

/**
 * A token. It is kept as digests only, so that nothing that prints an object can print it.
 *
 * A session is a time and a signature of it, made with the token: it outlives a restart of the server, and a new token
 * ends it.
 */
export class Token {
  readonly #digest: Uint8Array;
  readonly #key: CryptoKey;
  readonly #attempts: Attempts;

  private constructor(digest: Uint8Array, key: CryptoKey, attempts: Attempts) {
    this.#digest = digest;
    this.#key = key;
    this.#attempts = attempts;
  }

  /**
   * Makes a token.
   *
   * @param text The token.
   * @param clock The source of time.
   */
  static async from(text: string, clock: Clock): Promise<Token> {
    const algorithm = { name: "HMAC", hash: "SHA-256" };
    const secret = await digestOf(`shouty admin session\n${text}`);
    const key = await crypto.subtle.importKey("raw", secret, algorithm, false, ["sign"]);
    return new Token(await digestOf(text), key, new Attempts(clock));
  }

  /**
   * Compares what a client has sent with the token.
   *
   * @param text What it has sent.
   * @param client Who has sent it: each client has only so many failures.
   * @throws {Refusal} (As a rejection.) If the client has failed too often; nothing is compared then.
   */
  async matches(text: string, client: string): Promise<boolean> {
    const digest = await digestOf(text);
    // No `await` from here on: concurrent requests with the right token must not see each other's attempt counted.
    this.#attempts.take(client);
    // The digests differ in all their bytes if the texts differ in one, and have the same length.
    const same = equal(digest, this.#digest);
    if (same) this.#attempts.giveBack(client);
    return same;
  }

  /** Makes the value of a cookie. */
  async newSession(): Promise<{ value: string; seconds: number }> {
    const ends = String(Math.floor(Date.now() / 1000) + SESSION_S);
    return { value: `${ends}.${(await this.#sign(ends)).toHex()}`, seconds: SESSION_S };
  }

  /** Whether this is the value of a cookie that is still good. */
  async isSession(value: string): Promise<boolean> {
    const [, ends, signature] = /^(\d{1,15})\.([\da-f]{64})$/.exec(value) ?? [];
    if (ends === undefined || Number(ends) * 1000 < Date.now()) return false;
    return equal(await this.#sign(ends), Uint8Array.fromHex(signature));
  }

  async #sign(text: string): Promise<Uint8Array> {
    return new Uint8Array(await crypto.subtle.sign("HMAC", this.#key, ENCODER.encode(text)));
  }
}

async function digestOf(text: string): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", ENCODER.encode(text)));
}

/** Compares all bytes, whichever differ: the time that it takes tells nothing about them. */
function equal(a: Uint8Array, b: Uint8Array): boolean {
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) difference |= a[i] ^ b[i];
  return difference === 0;
}
