/**
 * A store that speaks a part of Redis' protocol (RESP2): strings that expire, counters, and channels. It bounds what a
 * client can make a connection hold, but neither the store nor the number of channels, and it ignores arguments beyond
 * those that a command knows.
 *
 * Run it with a port, 6379 by default: `deno run -A examples/redis.ts 6379`
 *
 * ```text
 * $ redis-cli
 * 127.0.0.1:6379> SET greeting hello EX 60
 * OK
 * 127.0.0.1:6379> GET greeting
 * "hello"
 * ```
 *
 * @module
 */

import { type Conn, type ConnHandler, formatAddr, serveConnections, type ServeOptions, type Server } from "@x/shouty";

const COMMAND_BYTES = 16 * 1024 * 1024; // Of a command, which the server holds until it has come whole.
const [SIZE, INTEGER] = [/^\$\d{1,9}$/, /^(0|-?[1-9]\d{0,18})$/];
const [OK, NIL, PONG] = ["+OK\r\n", "$-1\r\n", "+PONG\r\n"];
const [SYNTAX, NOT_INTEGER] = ["-ERR syntax error\r\n", "-ERR value is not an integer or out of range\r\n"];

/** Bytes; as text, each character is one byte. */
type Arg = string | Uint8Array;

// Of 64 bits, as `INTEGER` alone does not tell.
const isInteger = (value: string) => INTEGER.test(value) && BigInt(value) === BigInt.asIntN(64, BigInt(value));
const integer = (value: number | bigint) => `:${value}\r\n`;
const bulk = (value: Arg) => join([`$${value.length}\r\n`, value, "\r\n"]);
const array = (items: Arg[]) => join([`*${items.length}\r\n`, ...items]);
// A `TextDecoder` takes "latin1" for windows-1252, which has other characters.
const text = (arg: Arg) => typeof arg === "string" ? arg : new TextDecoder("utf-16le").decode(new Uint16Array(arg));

function join(parts: Arg[]): Uint8Array {
  const size = parts.reduce((sum, { length }) => sum + length, 0);
  if (size > 2 * COMMAND_BYTES) return join(["-ERR reply too long\r\n"]);
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    if (typeof part !== "string") bytes.set(part, at);
    else for (let i = 0; i < part.length; i++) bytes[at + i] = part.charCodeAt(i);
    at += part.length;
  }
  return bytes;
}

/** What the store does for each command. `now` is the time, in milliseconds. */
function storeCommands(now: () => number): Record<string, (conn: Conn, ...args: Arg[]) => Arg> {
  // `reply` is what a GET sends: the value as a bulk string.
  const entries = new Map<string, { reply: Uint8Array; expiresAt: number }>();
  const find = (key: Arg) => {
    const entry = entries.get(text(key));
    return !entry || entry.expiresAt === Infinity || entry.expiresAt > now() ? entry : void entries.delete(text(key));
  };
  const set = (key: Arg, value: Arg, expiresAt = Infinity) => entries.set(text(key), { reply: bulk(value), expiresAt });
  const add = (key: Arg, step: string) => {
    const { reply = "$1\r\n0\r\n", expiresAt = Infinity } = find(key) ?? {};
    // A value that is cut off here is too long for an integer.
    const value = text(reply.slice(0, 40)).replace(/^\$\d+\r\n/, "").slice(0, -2);
    if (!isInteger(value) || !isInteger(step)) return NOT_INTEGER;
    const sum = BigInt(value) + BigInt(step);
    if (sum !== BigInt.asIntN(64, sum)) return "-ERR increment or decrement would overflow\r\n";
    return set(key, `${sum}`, expiresAt), integer(sum);
  };
  return {
    GET: (_, key) => find(key)?.reply ?? NIL,
    SET: (_, key, value, ...options) => {
      const words = options.map((option) => ` ${text(option).toUpperCase()}`).join("");
      const [all, before, , unit, time, behind] = /^( NX| XX)?( (EX|PX) ([1-9]\d{0,14}))?( NX| XX)?$/.exec(words) ?? [];
      if (all === undefined || (before ?? behind) !== (behind ?? before)) return SYNTAX;
      if (words.includes(find(key) === undefined ? "XX" : "NX")) return NIL;
      return set(key, value, unit ? now() + Number(time) * (unit === "EX" ? 1000 : 1) : Infinity), OK;
    },
    DEL: (_, ...args) => integer(args.filter((key) => find(key) && entries.delete(text(key))).length),
    EXISTS: (_, ...args) => integer(args.filter(find).length),
    INCR: (_, key) => add(key, "1"),
    DECR: (_, key) => add(key, "-1"),
    INCRBY: (_, key, step) => add(key, text(step)),
    DECRBY: (_, key, step) => isInteger(text(step)) ? add(key, `${-BigInt(text(step))}`) : NOT_INTEGER,
    MGET: (_, ...args) => array(args.map((key) => find(key)?.reply ?? NIL)),
    MSET: (_, ...all) => all.length % 2 === 0 && all.every((key, i) => i % 2 > 0 || set(key, all[i + 1])) ? OK : SYNTAX,
    EXPIRE: (_, key, seconds) => {
      if (!/^(0|-?[1-9]\d{0,14})$/.test(text(seconds))) return NOT_INTEGER;
      const entry = find(key);
      return integer(entry && Object.assign(entry, { expiresAt: now() + 1000 * Number(seconds) }) ? 1 : 0);
    },
    TTL: (_, key) => {
      const left = Math.round(((find(key)?.expiresAt ?? -Infinity) - now()) / 1000);
      return integer(Number.isFinite(left) ? left : left < 0 ? -2 : -1);
    },
    KEYS: (_, pattern) => {
      if (pattern.length > 1000) return "-ERR pattern too long\r\n";
      const [first, ...rest] = text(pattern).split("*").map((part) => RegExp.escape(part).replaceAll("\\?", "[^]"));
      // What a lookahead has found is final. With backtracking, many stars could take for ever.
      const found = rest.map((part, i) => `(?=([^]*?${part}${i === rest.length - 1 ? "$" : ""}))\\${i + 1}`);
      const wanted = new RegExp(`^${first}${found.join("")}$`);
      return array([...entries.keys()].filter((key) => find(key) && wanted.test(key)).map(bulk));
    },
    DBSIZE: () => integer([...entries.keys()].filter(find).length),
    FLUSHALL: () => (entries.clear(), OK),
  };
}

/** Answers all its clients from one store. `now` is the time, in milliseconds; only subscribers may be idle for longer. */
export function redis(now: () => number, idleTimeout: number): ConnHandler {
  const channelsOf = new Map<Conn, Set<string>>();
  const listen = (conn: Conn, verb: "subscribe" | "unsubscribe", names: Iterable<Arg>) => {
    const channels = channelsOf.get(conn) ?? channelsOf.set(conn, new Set()).get(conn)!;
    const replies = Array.from(names, (name) => {
      channels[verb === "subscribe" ? "add" : "delete"](text(name));
      return array([bulk(verb), bulk(name), integer(channels.size)]);
    });
    // A subscriber may be silent for days.
    conn.setLimits({ idleTimeout: channels.size > 0 ? Infinity : idleTimeout });
    return replies.length > 0 ? join(replies) : array([bulk(verb), NIL, integer(0)]);
  };
  // The parameters of a command, but for those with a default and the rest, are the arguments that it must have.
  const commands = new Map(Object.entries<(conn: Conn, ...args: Arg[]) => Arg>({
    ...storeCommands(now),
    SETEX: (conn, key, seconds, value): Arg => commands.get("SET")!(conn, key, value, "EX", seconds),
    PING: (conn, word = "") => channelsOf.get(conn)?.size ? array(["pong", word].map(bulk)) : word ? bulk(word) : PONG,
    ECHO: (_, message) => bulk(message),
    SELECT: (_, index) => index === "0" ? OK : "-ERR DB index is out of range\r\n",
    CLIENT: ({ id }, what) => /^id$/i.test(text(what)) ? integer(id) : OK,
    COMMAND: (_, what = "") => /^count$/i.test(text(what)) ? integer(0) : array([]),
    CONFIG: () => array([]),
    INFO: () => bulk("# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nloading:0\r\n"),
    HELLO: (_, version = "2") => version === "2" ? array([]) : "-NOPROTO unsupported protocol version\r\n",
    QUIT: () => OK,
    SUBSCRIBE: (conn, ...names) => listen(conn, "subscribe", names),
    UNSUBSCRIBE: (conn, ...names) => listen(conn, "unsubscribe", names.length > 0 ? names : channelsOf.get(conn) ?? []),
    PUBLISH: (_, channel, message) => {
      const push = array([bulk("message"), bulk(channel), bulk(message)]);
      const listeners = [...channelsOf.keys()].filter((conn) => channelsOf.get(conn)!.has(text(channel)));
      // Without waiting: a subscriber that does not read delays no other, and `maxQueuedBytes` bounds what it is owed.
      for (const conn of listeners) conn.write(push);
      return integer(listeners.length);
    },
  }));
  return async (conn) => {
    conn.closed.then(() => channelsOf.delete(conn));
    for (let args; (args = await readCommand(conn)) !== null;) {
      if (args.length === 0) continue;
      const name = text(args.shift()!).toUpperCase();
      const run = commands.get(name) ?? (() => "-ERR unknown command\r\n");
      await conn.write(args.length + 1 < run.length ? "-ERR too few arguments\r\n" : run(conn, ...args));
      if (name === "QUIT") return;
    }
  };
}

/** Hangs up, with an error unless it is the end of input that has cut the command off. */
const refuse = (conn: Conn) => (conn.ending ?? conn.close({ lastWord: "-ERR Protocol error\r" }), null);

/** Reads a command: an array of bulk strings, or a line. Returns null if there are no more. */
async function readCommand(conn: Conn): Promise<Arg[] | null> {
  const line = await conn.readLine();
  if (line?.[0] !== "*") return line?.split(" ").filter((word) => word !== "") ?? null;
  if (!INTEGER.test(line.slice(1))) return refuse(conn);
  const args: Arg[] = [];
  for (let left = COMMAND_BYTES, count = Number(line.slice(1)), header; args.length < count;) {
    const size = SIZE.test(header = await conn.readLine() ?? "") ? Number(header.slice(1)) : Infinity;
    // An argument of no bytes takes memory, too.
    if ((left -= size + 256) < 0) return refuse(conn);
    // A short argument is read as lines, which is faster.
    const bytes = size > 4096 ? await conn.readExactly(size, { maxBytes: COMMAND_BYTES }) : undefined;
    let rest = await conn.readLine() ?? "";
    // A line end may be a part of the argument.
    while (bytes === undefined && rest.length < size && conn.ending === undefined) {
      rest += (conn.lastLineEnd === "crlf" ? "\r\n" : "\n") + await conn.readLine();
    }
    if (rest.length !== (bytes === undefined ? size : 0) || conn.ending !== undefined) return refuse(conn);
    args.push(bytes ?? rest);
  }
  return args;
}

/** Serves a store on loopback; the options go to the server. */
export function serveRedis(options: ServeOptions = {}): Server {
  const { clock = performance, idleTimeout = 600_000 } = options;
  // At any other end, such as that of a quiet time, the line would be taken for the reply to the next command.
  const lastWords = (why: string, limit: number) =>
    /long|memory|limit|connections/.test(why) ? `-ERR ${why} ${limit}\r` : null;
  // Text is bytes, so that a line can be a part of an argument. A number that is cut off would be another.
  const framing = { lineEnd: "any", encoding: "latin1", unterminated: "drop" } as const;
  const network = { hostname: "127.0.0.1", idleTimeout, lineTimeout: 10_000, writeTimeout: 10_000 };
  const rest = { maxQueuedBytes: 2 * COMMAND_BYTES, drain: "finish", framing, lastWords } as const;
  return serveConnections({ ...network, ...rest, ...options }, redis(() => clock.now(), idleTimeout));
}

if (import.meta.main) {
  console.error(`listening on ${formatAddr(serveRedis({ port: Number(Deno.args[0] ?? 6379) }).addr)}`);
}
