/**
 * A cache that speaks memcached's text protocol, with all of its commands for storing and reading but the meta commands
 * (`mg`, `ms` and others): values are bytes, items expire, and a full cache drops the items that were not used for
 * longest.
 *
 * Run it with a port, 11211 by default: `deno run -A examples/memcached.ts 11211`
 *
 * ```text
 * $ nc -C 127.0.0.1 11211
 * set greeting 0 0 5
 * hello
 * STORED
 * get greeting
 * VALUE greeting 0 5
 * hello
 * END
 * ```
 *
 * @module
 */

import { type Conn, type ConnHandler, formatAddr, serveConnections, type ServeOptions, type Server } from "@x/shouty";

const STORE_ARGS = /^[^ ]+ \d{1,10} -?\d{1,10} \d{1,15}( \d{1,20})?$/;
const WITH_NOREPLY = /^(set|add|replace|append|prepend|cas|incr|decr|delete|touch|flush_all|verbosity)$/;
const KEY = /^[!-~\x80-\xff]{1,250}$/; // Bytes as latin1: neither control characters nor spaces.
const isNumber = (text: string) => /^\d{1,20}$/.test(text) && BigInt(text) < 2n ** 64n;
const SECONDS = /^-?\d{1,10}$/;
const LARGEST_BYTES = 1024 * 1024; // Of a value, with the line end behind it.
const ITEM_BYTES = 512; // Roughly the memory of an item besides its key and its value.
const BAD_LINE = "CLIENT_ERROR bad command line format";
const TOO_LARGE = "SERVER_ERROR object too large for cache";
const VERSION = "1.6.0"; // Clients read from it which commands there are.

/** `value` ends with CRLF, as it came and as it is sent. */
type Item = { ownKey: string; flags: number; expiresAt: number; value: Uint8Array<ArrayBuffer>; cas: number };

/** Items in the order of their last use. */
class Cache {
  readonly items: Map<string, Item> = new Map();
  readonly stats = { get_hits: 0, get_misses: 0, cmd_set: 0, evictions: 0, bytes: 0 };
  flushAt = Infinity;

  constructor(readonly maxBytes: number, readonly now: () => number) {}

  expiry(seconds: number): number {
    if (seconds === 0) return Infinity;
    // More than 30 days are a moment: the seconds since 1970.
    return this.now() + 1000 * (seconds > 30 * 86_400 ? seconds - Date.now() / 1000 : seconds);
  }

  find(key: string): Item | undefined {
    if (this.now() >= this.flushAt) {
      this.flushAt = Infinity;
      for (const old of this.items.keys()) this.delete(old);
    }
    const item = this.items.get(key);
    if (item === undefined || item.expiresAt <= this.now()) return void this.delete(key);
    this.items.delete(key);
    this.items.set(item.ownKey, item);
    return item;
  }

  set(key: string, flags: number, expiresAt: number, value: Item["value"]): string {
    const cost = ITEM_BYTES + key.length + value.length;
    if (value.length > LARGEST_BYTES || cost > this.maxBytes) return TOO_LARGE;
    this.delete(key);
    for (; this.stats.bytes + cost > this.maxBytes; this.stats.evictions++) {
      this.delete(this.items.keys().next().value!);
    }
    this.stats.bytes += cost;
    // A copy: a slice of a line would keep the whole line in memory.
    const ownKey = (" " + key).slice(1);
    this.items.set(ownKey, { ownKey, flags, expiresAt, value, cas: ++this.stats.cmd_set });
    return "STORED";
  }

  delete(key: string): boolean {
    const item = this.items.get(key);
    if (item !== undefined) this.stats.bytes -= ITEM_BYTES + key.length + item.value.length;
    return this.items.delete(key);
  }
}

/** Answers all its clients from one cache, which holds at most `maxBytes`. `now` is the time, in milliseconds. */
export function memcached(maxBytes: number, now: () => number): ConnHandler {
  const cache = new Cache(maxBytes, now);
  return async (conn) => {
    for await (const line of conn.lines) {
      const [verb = "", ...args] = line.split(" ").filter((word) => word !== "");
      if (verb === "quit") return;
      const silent = WITH_NOREPLY.test(verb) && args.at(-1) === "noreply" && args.pop() !== undefined;
      const reply = await answer(cache, conn, verb, args);
      if (reply !== "" && !silent) await conn.write(`${reply}\r\n`);
    }
  };
}

/** Returns the last line of the reply; "" if the connection closes with a line of its own. */
async function answer(cache: Cache, conn: Conn, verb: string, args: string[]): Promise<string> {
  if (/^(get|gat)s?$/.test(verb)) return await retrieve(cache, conn, verb, args);
  if (/^(set|add|replace|append|prepend|cas)$/.test(verb)) return await store(cache, conn, verb, args);
  const form = `${verb} ${args.length}`;
  if (verb === "version") return `VERSION ${VERSION}`;
  if (form === "verbosity 1") return "OK";
  if (form === "stats 0") return statsOf(cache);
  if (!/^(flush_all [01]|delete [12]|(incr|decr|touch) 2)$/.test(form)) return "ERROR";
  const [key = "0", number = "0"] = args;
  if (!KEY.test(key)) return BAD_LINE;
  if (verb === "incr" || verb === "decr") return count(cache, key, verb, number);
  // The time that a delete once had: only 0 is left of it.
  if (!SECONDS.test(verb === "flush_all" ? key : number) || verb === "delete" && number !== "0") return BAD_LINE;
  // First, as this carries out the last flush, if it is due.
  const item = cache.find(key);
  if (verb === "flush_all") return (cache.flushAt = cache.expiry(Number(key) || -1), "OK");
  if (item === undefined) return "NOT_FOUND";
  if (verb === "delete") return cache.delete(key) ? "DELETED" : "NOT_FOUND";
  item.expiresAt = cache.expiry(Number(number));
  return "TOUCHED";
}

function statsOf({ maxBytes: limit_maxbytes, items: { size: curr_items }, stats }: Cache): string {
  const all = Object.entries({ pid: Deno.pid, version: VERSION, ...stats, curr_items, limit_maxbytes });
  return all.map(([name, value]) => `STAT ${name} ${value}\r\n`).join("") + "END";
}

async function retrieve(cache: Cache, conn: Conn, verb: string, args: string[]): Promise<string> {
  const expiry = verb.startsWith("gat") ? args.shift() : undefined;
  if (args.length === 0) return "ERROR";
  if (!args.every((key) => KEY.test(key)) || !SECONDS.test(expiry ?? "0")) return BAD_LINE;
  for (const key of args) {
    const item = cache.find(key);
    cache.stats[item === undefined ? "get_misses" : "get_hits"]++;
    if (item === undefined) continue;
    if (expiry !== undefined) item.expiresAt = cache.expiry(Number(expiry));
    const cas = verb.endsWith("s") ? ` ${item.cas}` : "";
    conn.write(`VALUE ${key} ${item.flags} ${item.value.length - 2}${cas}\r\n`);
    await conn.write(item.value);
  }
  return "END";
}

async function store(cache: Cache, conn: Conn, verb: string, args: string[]): Promise<string> {
  const [key, flags, expiry, size, cas] = args;
  // Without the right length, parts of the value would run as commands.
  const refuse = (error: string) => (conn.close({ lastWord: `${error}\r`, detail: error }), "");
  if (!STORE_ARGS.test(args.join(" ")) || (verb === "cas") !== (args.length === 5)) return refuse(BAD_LINE);
  const bytes = Number(size) + 2;
  const error = !KEY.test(key) || Number(flags) >= 2 ** 32 ? BAD_LINE : bytes > LARGEST_BYTES ? TOO_LARGE : undefined;
  if (error !== undefined) {
    await conn.readStream(bytes).cancel();
    // A client that could not set the new value must not find the old one.
    if (verb === "set") cache.delete(key);
    return error;
  }
  const value = await conn.readExactly(bytes);
  if (value.at(-2) !== 13 || value.at(-1) !== 10) return refuse("CLIENT_ERROR bad data chunk");
  const item = cache.find(key);
  if (verb === "cas" && cas !== `${item?.cas}`) return item === undefined ? "NOT_FOUND" : "EXISTS";
  if (verb !== "set" && (verb === "add") !== (item === undefined)) return "NOT_STORED";
  const expiresAt = cache.expiry(Number(expiry));
  if (item === undefined || !verb.endsWith("pend")) return cache.set(key, Number(flags), expiresAt, value);
  const [first, second] = verb === "append" ? [item.value, value] : [value, item.value];
  const joined = new Uint8Array(first.length - 2 + second.length);
  joined.set(first);
  joined.set(second, first.length - 2);
  return cache.set(key, item.flags, item.expiresAt, joined);
}

/** Counts as memcached does: in 64 bits, up from the largest number to 0, and down to 0 but not further. */
function count(cache: Cache, key: string, verb: string, step: string): string {
  if (!isNumber(step)) return "CLIENT_ERROR invalid numeric delta argument";
  const item = cache.find(key);
  if (item === undefined) return "NOT_FOUND";
  const text = String.fromCharCode(...item.value.subarray(0, 23)).slice(0, -2);
  if (!isNumber(text)) return "CLIENT_ERROR cannot increment or decrement non-numeric value";
  const sum = BigInt(text) + (verb === "incr" ? BigInt(step) : -BigInt(step));
  const result = `${sum < 0n ? 0n : BigInt.asUintN(64, sum)}`;
  cache.set(key, item.flags, item.expiresAt, new TextEncoder().encode(`${result}\r\n`));
  return result;
}

/** Serves a cache of 64 MiB, or `maxBytes`, on loopback; the options go to the server. */
export function serveMemcached(options: ServeOptions = {}, maxBytes: number = 64 * 1024 * 1024): Server {
  const { clock = performance } = options;
  // At any other end, such as that of a quiet time, the line would be taken for the reply to the next command.
  const told = /long|memory|limit|connections/;
  const lastWords = (why: string, limit: number) => told.test(why) ? `SERVER_ERROR ${why} ${limit}\r` : null;
  // Keys are bytes. A command that the end of input cuts off could be the beginning of another one.
  const framing = { lineEnd: "any", encoding: "latin1", unterminated: "drop" } as const;
  const defaults = { hostname: "127.0.0.1", idleTimeout: 600_000, lineTimeout: 10_000, writeTimeout: 10_000 };
  return serveConnections({ ...defaults, framing, lastWords, ...options }, memcached(maxBytes, () => clock.now()));
}

if (import.meta.main) {
  const server = serveMemcached({ port: Number(Deno.args[0] ?? 11211) });
  console.error(`listening on ${formatAddr(server.addr)}`);
}
