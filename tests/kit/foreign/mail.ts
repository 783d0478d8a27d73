/**
 * The mail sink of the examples under test.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import type { ClosedEvent, ServeOptions, TlsCredentialsHandle } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { type Mail, serveSmtp } from "../../../examples/smtp.ts";
import { bytesOf } from "../bytes.ts";
import { TestServer } from "../server.ts";

/** A sink that keeps its mails. */
export class MailServer extends TestServer {
  readonly mails: Mail[];

  constructor(options: ServeOptions = {}, credentials?: TlsCredentialsHandle) {
    const mails: Mail[] = [];
    const take = (mail: Mail) => void mails.push(mail);
    super((options) => serveSmtp(options, { take, credentials }), options);
    this.mails = mails;
  }

  /** The texts of the mails. */
  get texts(): string[] {
    return this.mails.map(({ text }) => text);
  }

  /** Sends bytes, one for each character, and the end of input; returns the replies behind the greeting. */
  async send(input: string): Promise<string> {
    const replies = await this.talk(bytesOf(input));
    assertEquals(replies.slice(0, GREETING.length), GREETING);
    return replies.slice(GREETING.length);
  }
}

/** What a client hears first. */
export const GREETING = "220 mail.shouty ESMTP\r\n";

/** The way to the text of a mail, and the replies up to there. */
export const ENVELOPE = "HELO me\r\nMAIL FROM:<ada@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n";
export const ACCEPTED = "250 mail.shouty\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End with <CRLF>.<CRLF>\r\n";

/** The reply to EHLO. */
export const EHLO: string = "250-mail.shouty\r\n250-PIPELINING\r\n250-SIZE 10485760\r\n250-AUTH PLAIN LOGIN\r\n" +
  "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 SMTPUTF8";

/** Connects a client, and reads the greeting. */
export async function hello(t: MailServer): Promise<TestClient> {
  const client = await t.connect();
  assertEquals(`${await client.readLine()}\n`, GREETING);
  return client;
}

/** Sends something, and reads what must come back. */
export async function ask(client: TestClient, input: string, expected: string): Promise<void> {
  await client.write(input);
  assertEquals(new TextDecoder().decode(await client.readBytes(expected.length)), expected);
}

/** Closes a client, and returns how the server's end was closed. */
export async function close(t: MailServer, client: TestClient): Promise<ClosedEvent> {
  client[Symbol.dispose]();
  return await t.closed(t.all("closed").length + 1);
}
