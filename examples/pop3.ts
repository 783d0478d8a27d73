/**
 * A mailbox of two mails that speaks POP3 (RFC 1939). The user is `user`, the password `pass`. Mails that a client has
 * deleted are gone when it says QUIT, and back when the server starts again.
 *
 * Run it with a port, 1100 by default: `deno run -A examples/pop3.ts 1100`. With the files of a certificate and of its
 * key behind the port, it offers STLS, and lets the user log in only under TLS.
 *
 * ```text
 * $ nc -C 127.0.0.1 1100
 * +OK POP3 ready
 * USER user
 * +OK
 * PASS pass
 * +OK 2 mails
 * STAT
 * +OK 2 290
 * $ curl pop3://user:pass@127.0.0.1:1100/1
 * $ curl --ssl-reqd --cacert ca.pem pop3://user:pass@localhost:1100/1
 * ```
 *
 * @module
 */

import { type Conn, type ConnHandler, formatAddr, serveConnections, type ServeOptions, type Server } from "@x/shouty";
import type { TlsCredentialsHandle } from "@x/shouty";
import { tlsCredentials } from "@x/shouty/ops";

const LOGIN_MS = 60_000;
const IDLE_MS = 600_000; // RFC 1939 asks for ten minutes.
const MAX_ERRORS = 10;
const KNOWN = /^(CAPA|STLS|USER|PASS|STAT|LIST|UIDL|RETR|TOP|DELE|NOOP|RSET|QUIT)$/;
const RIGHT = /^(CAPA|STLS|STAT|NOOP|RSET|QUIT|(USER|PASS) .+|(LIST|UIDL)( \d+)?|(RETR|DELE) \d+|TOP \d+ \d+)$/i;
const CAPABILITIES = ["TOP", "UIDL", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE", "EXPIRE NEVER"];
const TEXTS = [
  `From: Ada <ada@example.org>
To: user@example.org
Subject: Hello
Date: Tue, 24 Nov 2026 22:19:24 +0000

Hello. How are you?`,
  `From: Bob <bob@example.org>
To: user@example.org
Subject: Dots
Date: Tue, 24 Nov 2026 22:19:25 +0000

One dot, which does not end the mail:
.
.. and two`,
];

type Mail = { id: string; lines: string[]; bytes: number };
/** What all clients share, but only one of them at a time, as RFC 1939 demands. */
type Mailbox = { mails: Mail[]; inUse: boolean; credentials: TlsCredentialsHandle | undefined };
/** What the server knows about a client: its `conn.data`. It has mails once it has logged in. */
export type Session = { user: string | undefined; mails: Mail[] | undefined; deleted: Set<Mail> };
type Client = Conn<Session>;

/** Gives one client after the other access to a mailbox. Without credentials there is no STLS. */
export function pop3(texts: string[] = TEXTS, credentials?: TlsCredentialsHandle): ConnHandler<Session> {
  const mails = texts.map((text, i) => {
    const lines = text.split("\n");
    // Each line ends with CRLF.
    return { id: `mail-${i + 1}`, lines, bytes: new TextEncoder().encode(text).length + lines.length + 1 };
  });
  const box: Mailbox = { mails, inUse: false, credentials };
  return async (client) => {
    client.setDeadline(LOGIN_MS, "login");
    await client.write("+OK POP3 ready\r\n");
    let errors = 0;
    try {
      for await (const line of client.lines) {
        const reply = await answer(client, box, line);
        if (reply.startsWith("-") && ++errors > MAX_ERRORS) return client.close({ lastWord: "-ERR Too many errors" });
        if (reply !== "") await client.write(`${reply}\r\n`);
        if (/^QUIT$/i.test(line)) return;
      }
    } finally {
      // Without QUIT, the mails that the client has deleted stay.
      if (client.data.mails !== undefined) box.inUse = false;
    }
  };
}

/** Returns the reply to a command; "" if there is none. */
async function answer(client: Client, box: Mailbox, line: string): Promise<string> {
  const { data } = client;
  const verb = line.replace(/ .*/s, "").toUpperCase();
  if (!KNOWN.test(verb)) return "-ERR Unknown command";
  if (!RIGHT.test(line)) return "-ERR Wrong arguments";
  if (verb === "CAPA") return capabilities(client, box);
  if (verb === "QUIT") return quit(data, box);
  const argument = line.slice(verb.length + 1);
  if (data.mails !== undefined) return transact(data, data.mails, verb, argument);
  if (verb === "STLS") return await startTls(client, box);
  if (verb !== "USER" && verb !== "PASS") return "-ERR Log in first";
  if (!mayLogIn(client, box)) return "-ERR STLS first";
  if (verb === "PASS") return logIn(client, box, argument);
  data.user = argument;
  return "+OK";
}

/** The user's name and password must not be seen on the way, if that can be avoided. */
function mayLogIn({ tls }: Client, { credentials }: Mailbox): boolean {
  return tls !== undefined || credentials === undefined;
}

function capabilities(client: Client, box: Mailbox): string {
  return multiline("+OK", [...CAPABILITIES, mayLogIn(client, box) ? "USER" : "STLS"]);
}

async function startTls(client: Client, { credentials }: Mailbox): Promise<string> {
  if (credentials === undefined || client.tls !== undefined) return "-ERR No STLS here";
  await client.write("+OK Go ahead\r\n");
  // Commands that came behind STLS in plain text could be those of an attacker: the connection ends at them.
  await client.startTls(credentials);
  client.data.user = undefined;
  return "";
}

function logIn(client: Client, box: Mailbox, password: string): string {
  const { user } = client.data;
  client.data.user = undefined;
  if (user === undefined) return "-ERR USER first";
  if (user !== "user" || password !== "pass") return "-ERR [AUTH] Wrong user or password";
  if (box.inUse) return "-ERR [IN-USE] Another client is reading the mails";
  client.setDeadline(Infinity);
  box.inUse = true;
  client.data.mails = box.mails;
  return `+OK ${box.mails.length} mails`;
}

/** Answers a client that has logged in. */
function transact({ deleted }: Session, mails: Mail[], verb: string, argument: string): string {
  if (verb === "STLS" || verb === "USER" || verb === "PASS") return "-ERR Logged in already";
  if (verb === "RSET") deleted.clear();
  const left = mails.filter((mail) => !deleted.has(mail));
  const summary = `+OK ${left.length} ${left.reduce((sum, { bytes }) => sum + bytes, 0)}`;
  if (verb === "STAT" || verb === "RSET" || verb === "NOOP") return summary;
  const [number, count] = argument.split(" ").map(Number);
  const row = (mail: Mail) => `${mails.indexOf(mail) + 1} ${verb === "LIST" ? mail.bytes : mail.id}`;
  if (argument === "") return multiline(summary, left.map(row));
  const mail = left.find((mail) => mail === mails[number - 1]);
  if (mail === undefined) return "-ERR No such mail";
  if (verb === "LIST" || verb === "UIDL") return `+OK ${row(mail)}`;
  if (verb === "DELE") deleted.add(mail);
  if (verb === "DELE") return "+OK Deleted";
  // TOP gives the header, the empty line behind it, and the first lines of the body.
  const lines = verb === "TOP" ? mail.lines.slice(0, mail.lines.indexOf("") + 1 + count) : mail.lines;
  return multiline(`+OK ${mail.bytes} octets`, lines);
}

function quit({ mails, deleted }: Session, box: Mailbox): string {
  if (mails !== undefined) box.mails = mails.filter((mail) => !deleted.has(mail));
  return "+OK Bye";
}

/** A line of a reply that begins with a dot gets a second one, so that it is not the end of the reply. */
function multiline(first: string, lines: string[]): string {
  return [first, ...lines.map((line) => line.replace(/^\./, "..")), "."].join("\r\n");
}

/** Serves a mailbox on loopback; the options go to the server. */
export function servePop3(
  options: Omit<ServeOptions, "data"> = {},
  credentials?: TlsCredentialsHandle,
  texts: string[] = TEXTS,
): Server<Session> {
  const framing = { lineEnd: "crlf", unterminated: "drop", onLongLine: "discard" } as const;
  const times = { firstLineTimeout: LOGIN_MS, lineTimeout: LOGIN_MS, idleTimeout: IDLE_MS, writeTimeout: LOGIN_MS };
  const limits = { ...times, maxConnections: 100, maxLineBytes: 253, drain: "finish" } as const;
  // A client that is silent for too long is told nothing, as RFC 1939 demands: it would be the reply to its next command.
  const lastWords = (why: string) => /long|memory|connections|denied|refused/.test(why) ? `-ERR ${why}` : null;
  const data = () => ({ user: undefined, mails: undefined, deleted: new Set<Mail>() });
  const all = { hostname: "127.0.0.1", ...limits, framing, lastWords, ...options, data };
  return serveConnections(all, pop3(texts, credentials));
}

if (import.meta.main) {
  const [port = 1100, ...files] = Deno.args;
  const [cert, key] = files.map((file) => Deno.readTextFileSync(file));
  const credentials = cert === undefined ? undefined : await tlsCredentials({ cert, key });
  const server = servePop3({ port: Number(port) }, credentials);
  console.error(`listening on ${formatAddr(server.addr)}`);
  const signals = Deno.build.os === "windows" ? ["SIGINT"] as const : ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, () => server.shutdown());
  await server.finished;
  Deno.exit();
}
