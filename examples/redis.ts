/**
 * A store that speaks a part of Redis' protocol (RESP2): strings that expire, counters, and channels. It bounds what a
 * client can make a connection hold, but not the store, and it ignores arguments beyond those that a command knows.
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
const INTEGER = /^(0|-?[1-9]\d{0,18})$/;
const OPTIONS_OF_SET = /^( NX| XX)?( (EX|PX) ([1-9]\d{0,14}))?( NX| XX)?$/;
const [OK, NIL, PONG] = ["+OK\r\n", "$-1\r\n", "+PONG\r\n"];
const [SYNTAX, NOT_INTEGER] = ["-ERR syntax error\r\n", "-ERR value is not an integer or out of range\r\n"];

// All text is bytes: each character is one.
const integer = (value: number | bigint) => `:${value}\r\n`;
const bulk = (value: string) => `$${value.length}\r\n${value}\r\n`;
const fromBytes = (bytes: Uint8Array) => new TextDecoder("utf-16le").decode(new Uint16Array(bytes));
const array = (items: string[]) => `*${items.length}\r\n${items.join("")}`;

/** Answers all its clients from one store. `now` is the time, in milliseconds. */
export function redis(now: () => number): ConnHandler {
  // `reply` is what a GET sends: the value as a bulk string.
  const entries = new Map<string, { reply: string; expiresAt: number }>();
  const channelsOf = new Map<Conn, Set<string>>();
  const find = (key: string) => {
    const entry = entries.get(key);
    return !entry || entry.expiresAt === Infinity || entry.expiresAt > now() ? entry : void entries.delete(key);
  };
  const keys = () => [...entries.keys()].filter(find);
  const set = (key: string, value: string, expiresAt = Infinity) => entries.set(key, { reply: bulk(value), expiresAt });
  const add = (key: string, step: string) => {
    const { reply = "$1\r\n0\r\n", expiresAt = Infinity } = find(key) ?? {};
    const [, value] = reply.split("\r\n", 2);
    if (!INTEGER.test(value) || !INTEGER.test(step)) return NOT_INTEGER;
    const sum = BigInt(value) + BigInt(step);
    if (sum !== BigInt.asIntN(64, sum)) return "-ERR increment or decrement would overflow\r\n";
    return set(key, `${sum}`, expiresAt) && integer(sum);
  };
  const listen = (conn: Conn, verb: "subscribe" | "unsubscribe", names: Iterable<string>) => {
    const channels = channelsOf.getOrInsert(conn, new Set());
    const replies = Array.from(names, (name) => {
      channels[verb === "subscribe" ? "add" : "delete"](name);
      return array([bulk(verb), bulk(name), integer(channels.size)]);
    });
    // A subscriber may be silent for days.
    conn.setLimits({ idleTimeout: Infinity });
    return replies.join("") || array([bulk(verb), NIL, integer(0)]);
  };
  // The parameters of a command, but for those with a default and the rest, are the arguments that it must have.
  const commands = new Map(Object.entries<(conn: Conn, ...args: string[]) => string>({
    PING: (conn, word = "") => channelsOf.get(conn)?.size ? array(["pong", word].map(bulk)) : word ? bulk(word) : PONG,
    ECHO: (_, message) => bulk(message),
    GET: (_, key) => find(key)?.reply ?? NIL,
    SET: (_, key, value, ...options) => {
      const words = options.map((option) => ` ${option.toUpperCase()}`).join("");
      const match = OPTIONS_OF_SET.exec(words);
      if (match === null) return SYNTAX;
      if (words.includes(find(key) === undefined ? "XX" : "NX")) return NIL;
      set(key, value, match[3] === undefined ? Infinity : now() + Number(match[4]) * (match[3] === "EX" ? 1000 : 1));
      return OK;
    },
    DEL: (_, ...args) => integer(args.filter((key) => find(key) && entries.delete(key)).length),
    EXISTS: (_, ...args) => integer(args.filter(find).length),
    INCR: (_, key) => add(key, "1"),
    DECR: (_, key) => add(key, "-1"),
    INCRBY: (_, key, step) => add(key, step),
    MGET: (_, ...args) => array(args.map((key) => find(key)?.reply ?? NIL)),
    MSET: (_, ...all) => all.length % 2 === 0 && all.every((key, i) => i % 2 || set(key, all[i + 1])) ? OK : SYNTAX,
    EXPIRE: (_, key, seconds) => {
      const entry = find(key);
      if (!INTEGER.test(seconds)) return NOT_INTEGER;
      if (entry !== undefined) entry.expiresAt = now() + 1000 * Number(seconds);
      return integer(entry === undefined ? 0 : 1);
    },
    TTL: (_, key) => {
      const left = Math.round(((find(key)?.expiresAt ?? -Infinity) - now()) / 1000);
      return integer(Number.isFinite(left) ? left : left < 0 ? -2 : -1);
    },
    KEYS: (_, pattern) => {
      const [first, ...rest] = pattern.split("*").map((part) => RegExp.escape(part).replaceAll("\\?", "[^]"));
      // What a lookahead has found is final. With backtracking, many stars could take for ever.
      const found = rest.map((part, i) => `(?=([^]*?${part}${i === rest.length - 1 ? "$" : ""}))\\${i + 1}`);
      const wanted = new RegExp(`^${first}${found.join("")}$`);
      return array(keys().filter((key) => wanted.test(key)).map(bulk));
    },
    DBSIZE: () => integer(keys().length),
    FLUSHALL: () => (entries.clear(), OK),
    SELECT: (_, index) => index === "0" ? OK : "-ERR DB index is out of range\r\n",
    CLIENT: ({ id }, what) => /^id$/i.test(what) ? integer(id) : OK,
    COMMAND: (_, what = "") => /^count$/i.test(what) ? integer(0) : array([]),
    CONFIG: () => array([]),
    INFO: () => bulk("# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nloading:0\r\n"),
    HELLO: (_, version = "2") => version === "2" ? array([]) : "-NOPROTO unsupported protocol version\r\n",
    QUIT: () => OK,
    SUBSCRIBE: (conn, ...names) => listen(conn, "subscribe", names),
    UNSUBSCRIBE: (conn, ...names) => listen(conn, "unsubscribe", names.length > 0 ? names : channelsOf.get(conn) ?? []),
    PUBLISH: (conn, channel, message) => {
      const push = array([bulk("message"), bulk(channel), bulk(message)]);
      const listeners = [...channelsOf.keys()].filter((conn) => channelsOf.get(conn)!.has(channel));
      // Without waiting: a subscriber that does not read delays no other, and `maxQueuedBytes` bounds what it is owed.
      for (const listener of listeners) if (listener !== conn) listener.write(push);
      // What a client sends to itself comes behind the replies to its earlier commands.
      return (listeners.includes(conn) ? push : "") + integer(listeners.length);
    },
  }));
  return async (conn) => {
    conn.closed.then(() => channelsOf.delete(conn));
    for await (const batch of readCommands(conn)) {
      let replies = "";
      for (const [verb, ...args] of batch) {
        const name = verb.toUpperCase();
        const run = commands.get(name) ?? (() => "-ERR unknown command\r\n");
        replies += args.length + 1 < run.length ? "-ERR too few arguments\r\n" : run(conn, ...args);
        if (name === "QUIT") return void conn.write(replies);
        // A few bytes can ask for a long reply, and for many of them.
        if (replies.length > 64 * 1024) await conn.write(replies), replies = "";
      }
      if (replies !== "") await conn.write(replies);
    }
  };
}

/** Reads commands, in arrays of those that have come together: arrays of bulk strings, or lines of words. */
async function* readCommands(conn: Conn): AsyncGenerator<string[][]> {
  // The whole commands; and of the one that has begun the arguments, their number, and the bytes that are left for them.
  let [commands, args, count, left]: [string[][], string[], number, number] = [[], [], 0, 0];
  reading: for await (const lines of conn.batches) {
    for (let at = 0, line; (line = lines[at++]) !== undefined;) {
      if (count === 0 && line[0] !== "*") {
        if (line.trim() !== "") commands.push(line.trim().split(/ +/));
      } else if (count === 0) [args, count, left] = [[], numberIn(line), COMMAND_BYTES];
      else {
        const size = line[0] === "$" ? numberIn(line) : NaN;
        // An argument of no bytes takes memory, too.
        if (!((left -= size + 256) >= 0)) break reading;
        let arg = lines[at++] ?? "";
        if (arg.length !== size + 1 || !arg.endsWith("\r")) {
          // A line end may be a part of it, and the rest may be still to come.
          for (at--, arg = ""; arg.length < size + 2 && at < lines.length;) arg += `${lines[at++]}\n`;
          if (arg.length < size + 2) yield commands.splice(0);
          arg += fromBytes(await conn.readExactly(Math.max(0, size + 2 - arg.length), { maxBytes: COMMAND_BYTES }));
          if (arg.slice(size) !== "\r\n") break reading;
        }
        if (args.push(arg.slice(0, size)) === count) commands.push(args), count = 0;
      }
      if (Number.isNaN(count)) break reading;
    }
    yield commands.splice(0);
  }
  yield commands;
  // At the end of input, it has cut the rest off.
  if (conn.ending === undefined) conn.close({ lastWord: "-ERR Protocol error\r" });
}

/** Returns the number in a line such as `$16`; NaN if there is none. */
function numberIn(line: string): number {
  let number = line.length > 2 && line.endsWith("\r") ? 0 : NaN;
  for (let at = 1; at < line.length - 1; at++) number = 10 * number + parseInt(line[at]);
  return number;
}

/** Serves a store on loopback; the options go to the server. */
export function serveRedis(options: ServeOptions = {}): Server {
  // At any other end, such as that of a quiet time, the line would be taken for the reply to the next command.
  const lastWords = (why: string, limit: number) =>
    /long|memory|limit|connections/.test(why) ? `-ERR ${why} ${limit}\r` : null;
  // Text is bytes, so that lines can be parts of an argument. A number that the end of input cuts off is another one.
  const framing = { lineEnd: "lf", encoding: "latin1", unterminated: "drop" } as const;
  const timeouts = { idleTimeout: 600_000, lineTimeout: 10_000, writeTimeout: 10_000 };
  const rest = { maxQueuedBytes: 2 * COMMAND_BYTES, drain: "finish", framing, lastWords } as const;
  return serveConnections(
    { hostname: "127.0.0.1", ...timeouts, ...rest, ...options },
    redis(() => (options.clock ?? performance).now()),
  );
}

if (import.meta.main) {
  console.error(`listening on ${formatAddr(serveRedis({ port: Number(Deno.args[0] ?? 6379) }).addr)}`);
}
