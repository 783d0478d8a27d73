/**
 * A mail sink that speaks ESMTP (RFC 5321): takes each mail, says that it is queued, and prints a line about it, but
 * delivers nothing. The user `user` with the password `pass` can log in, which no mail needs.
 *
 * Run it with a port, 2525 by default: `deno run -A examples/smtp.ts 2525`. With the files of a certificate and of its
 * key behind the port, it offers STARTTLS, and lets users log in only under TLS.
 *
 * ```text
 * $ nc -C 127.0.0.1 2525
 * 220 mail.shouty ESMTP
 * HELO me
 * 250 mail.shouty
 * MAIL FROM:<ada@example.org>
 * 250 2.1.0 Ok
 * RCPT TO:<bob@example.org>
 * 250 2.1.5 Ok
 * DATA
 * 354 End with <CRLF>.<CRLF>
 * Hello, Bob!
 * .
 * 250 2.0.0 Ok: queued as 1.1
 * ```
 *
 * @module
 */

import { type Conn, type ConnHandler, formatAddr, serveConnections, type ServeOptions, type Server } from "@x/shouty";
import type { TlsCredentialsHandle } from "@x/shouty";
import { tlsCredentials } from "@x/shouty/ops";

const NAME = "mail.shouty";
const MAX_BYTES = 10 * 1024 * 1024; // Of a mail, which its connection holds until it is complete: a GB for all.
const COMMAND_BYTES = 1000; // Without the line end. RFC 5321 asks for 510, but extensions make commands longer.
const TEXT_BYTES = 64 * 1024; // Of a line of a mail. RFC 5321 asks for 998, but many programs write longer ones.
const [MAX_RECIPIENTS, MAX_ERRORS] = [100, 10]; // Of a mail; from one mail to the next.
const [SESSION_MS, MAIL_MS] = [300_000, 600_000]; // From one mail to the next; for the text of a mail.
const KNOWN = /^(EHLO|HELO|STARTTLS|AUTH|MAIL|RCPT|DATA|RSET|NOOP|VRFY|HELP|QUIT)$/;
const RIGHT = /^(\w+LO \S+|AUTH \S+( \S+)?|(MAIL FROM|RCPT TO):.+|VRFY .+|(NOOP|HELP)( .+)?|STARTTLS|DATA|RSET|QUIT)$/i;
const LOCAL = String.raw`(?:"(?:[^"\\]|\\.)+"|[^\s"(),:;<>@[\\\]]+)`;
const DOMAIN = String.raw`(?:[^\s"(),:;<>@[\\\]]+|\[[^\s"<>@[\\\]]+\])`;
// A route before the mailbox, such as `@a,@b:`, is ignored, as RFC 5321 demands.
const PATH = new RegExp(`^\\w+: ?<(?:(?:@[^\\s:<>]+:)?(${LOCAL}@${DOMAIN}|postmaster))?>(?: +(.*))?$`, "i");
const PARAMETERS = /^((SIZE=\d{1,20}|BODY=(7BIT|8BITMIME)|SMTPUTF8|AUTH=\S+)( +|$))*$/i;
const BASE64 = /^([A-Z\d+/]{4})*([A-Z\d+/]{2}==|[A-Z\d+/]{3}=)?$/i;
const LOGINS = ["\0user\0pass", "user\0user\0pass"]; // As in PLAIN: whom to act for, the user, the password.
const LAST_CODES: Record<string, string> = { drained: "421 4.3.2", denied: "554 5.7.1", refused: "554 5.7.1" };
const TOO_LARGE = `552 5.3.4 Mail larger than ${MAX_BYTES} bytes`;

/** A mail. Each character of its text is a byte; `utf8` tells whether addresses may have characters beyond ASCII. */
export type Mail = { from: string; to: string[]; text: string; utf8: boolean };
/** What takes the mails, and what STARTTLS needs: without that it is not offered. */
export type Sink = { take: (mail: Mail) => void | Promise<void>; credentials?: TlsCredentialsHandle | undefined };
/** What the server knows about a client: its `conn.data`. */
export type Session = { greeted: boolean; loggedIn: boolean; mail?: Mail | undefined; queued: number };
type Client = Conn<Session>;

const print = ({ from, to, text }: Mail) => console.log(`from <${from}> to <${to.join(">, <")}>: ${text.length} bytes`);

/** Gives the mails of all its clients to a sink. */
export function smtp(sink: Sink): ConnHandler<Session> {
  return async (client) => {
    client.setDeadline(SESSION_MS, "session");
    await client.write(`220 ${NAME} ESMTP\r\n`);
    for (let errors = 0, reply = "", line; reply.slice(0, 3) !== "221" && (line = await client.readLine()) !== null;) {
      reply = await answer(client, sink, line);
      errors = reply.startsWith("5") ? errors + 1 : reply.includes("queued") ? 0 : errors;
      if (errors > MAX_ERRORS) return client.close({ lastWord: "421 4.7.0 Too many errors", detail: "errors" });
      if (reply !== "") await client.write(`${reply}\r\n`);
    }
  };
}

/** Returns the reply to a command; "" if there is none. */
async function answer(client: Client, sink: Sink, line: string): Promise<string> {
  if (line.length > COMMAND_BYTES) return "500 5.5.2 Line too long";
  const text = new TextDecoder().decode(Uint8Array.from(line, (char) => char.charCodeAt(0)));
  // Also a CR or an LF alone, behind which another server could see a second command.
  if (/[\p{Cc}\p{Zl}\p{Zp}\ufffd]/u.test(text)) return "500 5.5.2 Control characters, or not UTF-8";
  const [command, word, args] = /^(\S*) *(.*)$/.exec(text.trimEnd())!;
  const verb = word.toUpperCase();
  if (!KNOWN.test(verb)) return "500 5.5.1 Unknown command";
  if (!RIGHT.test(command)) return `501 ${verb.endsWith("LO") ? "" : "5.5.4 "}Wrong arguments`;
  if (!client.data.greeted && /^(AUTH|MAIL)$/.test(verb)) return "503 5.5.1 EHLO first";
  if (verb === "EHLO" || verb === "HELO") return greet(client, sink, verb);
  if (verb === "STARTTLS") return await startTls(client, sink);
  if (verb === "AUTH") return await authenticate(client, sink, args.split(" "));
  if (verb === "MAIL" || verb === "RCPT") return address(client.data, args);
  if (verb === "DATA") return await receive(client, sink);
  if (verb === "VRFY") return "252 2.5.0 Send a mail, and see";
  if (verb === "HELP") return "214 2.0.0 See RFC 5321";
  if (verb === "RSET") client.data.mail = undefined;
  return verb === "QUIT" ? "221 2.0.0 Bye" : "250 2.0.0 Ok";
}

function greet({ data, tls }: Client, { credentials }: Sink, verb: string): string {
  Object.assign(data, { greeted: true, mail: undefined });
  if (verb === "HELO") return `250 ${NAME}`;
  const security = tls === undefined && credentials !== undefined ? "STARTTLS" : "AUTH PLAIN LOGIN";
  const extensions = ["PIPELINING", `SIZE ${MAX_BYTES}`, security, "ENHANCEDSTATUSCODES", "8BITMIME"];
  return [NAME, ...extensions].map((line) => `250-${line}\r\n`).join("") + "250 SMTPUTF8";
}

async function startTls(client: Client, { credentials }: Sink): Promise<string> {
  if (credentials === undefined) return "502 5.5.1 Not implemented";
  if (client.tls !== undefined) return "503 5.5.1 TLS is active";
  await client.write("220 2.0.0 Go ahead\r\n");
  // Commands that came behind STARTTLS in plain text could be those of an attacker: the connection ends at them.
  await client.startTls(credentials);
  // For the same reason, the server forgets what was said before.
  Object.assign(client.data, { greeted: false, loggedIn: false, mail: undefined });
  return "";
}

async function authenticate(client: Client, { credentials }: Sink, [mechanism, initial]: string[]): Promise<string> {
  if (client.tls === undefined && credentials !== undefined) return "538 5.7.11 Encryption required";
  if (client.data.loggedIn || client.data.mail !== undefined) return "503 5.5.1 Not now";
  if (!/^(PLAIN|LOGIN)$/i.test(mechanism)) return "504 5.5.4 Unknown mechanism";
  const prompts = /^PLAIN$/i.test(mechanism) ? [""] : ["Username:", "Password:"];
  const answers = initial === undefined ? [] : [initial.replace(/^=$/, "")];
  for (const prompt of prompts.slice(answers.length)) {
    await client.write(`334 ${btoa(prompt)}\r\n`);
    const answer = await client.readLine();
    if (answer === null || answer === "*") return "501 5.7.0 Cancelled";
    answers.push(answer);
  }
  if (!answers.every((answer) => BASE64.test(answer))) return "501 5.5.2 Not base64, or too long";
  const login = answers.map(atob).join("\0");
  client.data.loggedIn = LOGINS.includes(prompts.length === 1 ? login : `\0${login}`);
  return client.data.loggedIn ? "235 2.7.0 Welcome" : "535 5.7.8 Wrong user or password";
}

/** Answers MAIL and RCPT, whose arguments begin with FROM and TO. */
function address(data: Session, args: string): string {
  const opens = /^FROM/i.test(args);
  const path = PATH.exec(args);
  if (path === null || path[1] === undefined && !opens) return `501 5.1.${opens ? 7 : 3} No <address>`;
  const [, mailbox = "", parameters = ""] = path;
  if (opens === (data.mail !== undefined)) return "503 5.5.1 Bad sequence of commands";
  if (!(opens ? PARAMETERS : /^$/).test(parameters)) return "555 5.5.4 Unknown parameter";
  if (Number(/(?:^| )SIZE=(\d+)/i.exec(parameters)?.[1] ?? 0) > MAX_BYTES) return TOO_LARGE;
  const mail = data.mail ?? { from: mailbox, to: [], text: "", utf8: /(?:^| )SMTPUTF8( |$)/i.test(parameters) };
  if (!mail.utf8 && /[^ -~]/.test(mailbox)) return "553 5.6.7 The address needs SMTPUTF8";
  if (mail.to.length === MAX_RECIPIENTS) return "452 4.5.3 Too many recipients";
  data.mail = mail;
  if (opens) return "250 2.1.0 Ok";
  mail.to.push(mailbox);
  return "250 2.1.5 Ok";
}

/** Reads the text of a mail, and gives the mail to the sink. */
async function receive(client: Client, sink: Sink): Promise<string> {
  const { mail } = client.data;
  if (mail === undefined) return "503 5.5.1 MAIL first";
  if (mail.to.length === 0) return "554 5.5.1 No valid recipients";
  await client.write("354 End with <CRLF>.<CRLF>\r\n");
  client.setLimits({ maxLineBytes: TEXT_BYTES + 1 });
  client.setDeadline(MAIL_MS, "mail");
  let [lines, size, fault]: [string[], number, string] = [[], 0, ""];
  for (let line; (line = await client.readLine()) !== ".";) {
    // The mail is not complete: the last line can also be one that the end of input has cut off, even a ".".
    if (line === null) return "";
    const text = line.replace(/^\./, "");
    if ((size += text.length + 2) > MAX_BYTES) fault = TOO_LARGE;
    else if (line.length > TEXT_BYTES) fault ||= "554 5.6.0 Line too long";
    // Another server could take an LF or a CR alone for the end of a line, and then a "." behind it for the end of the
    // mail, and what follows for a second one. Postfix refuses such a mail, too (`smtpd_forbid_bare_newline = reject`).
    else if (/[\r\n]/.test(text)) fault ||= "550 5.5.2 CR or LF alone";
    // A refused mail is read up to its end, and dropped. Otherwise lines become one text now and then, since an array of
    // short ones takes many times their size.
    if (fault !== "") [lines, mail.text] = [[], ""];
    else if (lines.push(`${text}\r\n`) === 1000) mail.text += lines.splice(0).join("");
  }
  mail.text += lines.join("");
  client.setLimits({ maxLineBytes: COMMAND_BYTES + 1 });
  client.setDeadline(SESSION_MS, "session");
  client.data.mail = undefined;
  if (fault === "") await sink.take(mail);
  return fault || `250 2.0.0 Ok: queued as ${client.id}.${++client.data.queued}`;
}

/** Serves a sink on loopback; the options go to the server. By default it prints a line for each mail. */
export function serveSmtp(options: Omit<ServeOptions, "data"> = {}, sink: Sink = { take: print }): Server<Session> {
  // A line that is too long comes cut off, one byte above the limit. Each byte is a character.
  const framing = { lineEnd: "crlf", encoding: "latin1", unterminated: "drop", onLongLine: "truncate" } as const;
  const times = { firstLineTimeout: 60_000, lineTimeout: 60_000, idleTimeout: SESSION_MS, writeTimeout: 60_000 };
  const limits = { ...times, maxConnections: 100, maxLineBytes: COMMAND_BYTES + 1, drain: "finish" } as const;
  // A shutdown also ends a mail that has not come whole: at a 421, the client keeps it, and sends it again later.
  const lastWords = (why: string) => `${LAST_CODES[why] ?? "421 4.4.2"} ${NAME} closes the connection: ${why}`;
  // A web page can make a browser send a mail as the body of a request: HTTP gets an answer in HTTP, and the end.
  const rest = { answerMisdirected: true, lastWords, framing };
  const data = () => ({ greeted: false, loggedIn: false, queued: 0 });
  return serveConnections({ hostname: "127.0.0.1", ...limits, ...rest, ...options, data }, smtp(sink));
}

if (import.meta.main) {
  const [port = 2525, ...files] = Deno.args;
  const [cert, key] = files.map((file) => Deno.readTextFileSync(file));
  const credentials = cert === undefined ? undefined : await tlsCredentials({ cert, key });
  const server = serveSmtp({ port: Number(port) }, { take: print, credentials });
  console.error(`listening on ${formatAddr(server.addr)}`);
  const signals = Deno.build.os === "windows" ? ["SIGINT"] as const : ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, () => server.shutdown());
  await server.finished;
  Deno.exit();
}
