/**
 * A key-value store that speaks a part of memcached's text protocol: `get`, `set`, `delete`, `incr`, `quit`. A value is
 * one line of text, which does not expire. A full store refuses new items, and keeps the old ones.
 *
 * Run it with a port, 11211 by default: `deno run --allow-net examples/kv_store.ts 11211`
 *
 * ```text
 * $ nc 127.0.0.1 11211
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

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });
const COMMAND = /^([a-z]+) ([!-~]{1,250})((?: \d{1,20})*)( noreply)?$/;
const ITEM_BYTES = 256; // Roughly the memory of an item besides its key and its text.

type Store = { items: Map<string, { flags: number; text: string; cost: number }>; freeBytes: number };

/** Answers all its clients from one store, which holds at most `maxBytes`. */
export function kvStore(maxBytes: number): ConnHandler {
  const store: Store = { items: new Map(), freeBytes: maxBytes };
  return async (conn) => {
    for await (const line of conn.lines) {
      if (line === "quit") return;
      const [, verb = "", key = "", numbers = "", silent] = COMMAND.exec(line) ?? [];
      const reply = await answer(store, verb, key, numbers.match(/\d+/g) ?? [], conn);
      if (reply && !silent) await conn.write(`${reply}\r\n`);
      // After a wrong set, or a value with a line end in it, the rest of the value must not run as commands.
      if (/^set\b/.test(line) && /^(CLIENT_)?ERROR/.test(reply)) return;
    }
  };
}

async function answer(store: Store, verb: string, key: string, numbers: string[], { lines }: Conn): Promise<string> {
  const item = store.items.get(key);
  switch (`${verb} ${numbers.length}`) {
    case "get 0":
      return item ? `VALUE ${key} ${item.flags} ${sizeOf(item.text)}\r\n${item.text}\r\nEND` : "END";
    case "set 3": {
      const [flags, expiry, size] = numbers.map(Number);
      if (flags >= 2 ** 32 || expiry !== 0) return "ERROR";
      const { value: text } = await lines.next();
      if (text === undefined) return "";
      // Bytes that are not UTF-8 have become U+FFFD by now.
      if (size !== sizeOf(text) || text.includes("\uFFFD")) return "CLIENT_ERROR bad data chunk";
      return put(store, key, flags, text, "STORED");
    }
    case "delete 0":
      store.freeBytes += item?.cost ?? 0;
      return store.items.delete(key) ? "DELETED" : "NOT_FOUND";
    case "incr 1": {
      if (!item) return "NOT_FOUND";
      if (!/^\d{1,20}$/.test(item.text)) return "CLIENT_ERROR cannot increment or decrement non-numeric value";
      const sum = `${BigInt.asUintN(64, BigInt(item.text) + BigInt(numbers[0]))}`;
      return put(store, key, item.flags, sum, sum);
    }
  }
  return "ERROR";
}

function put(store: Store, key: string, flags: number, text: string, reply: string): string {
  const cost = ITEM_BYTES + key.length + sizeOf(text);
  const left = store.freeBytes + (store.items.get(key)?.cost ?? 0) - cost;
  if (left < 0) return "SERVER_ERROR out of memory storing object";
  store.freeBytes = left;
  store.items.set(copy(key), { flags, text: copy(text), cost });
  return reply;
}

function sizeOf(text: string): number {
  return ENCODER.encode(text).length;
}

/** A line is a slice of the block that it came in, and would keep the whole block in memory. */
function copy(text: string): string {
  return DECODER.decode(ENCODER.encode(text));
}

/** Serves a store of 64 MiB, or `maxBytes`, on loopback; the options go to the server. */
export function serveStore(options: ServeOptions = {}, maxBytes: number = 64 * 1024 * 1024): Server {
  const lastWords = (reason: string, limit: number) => `SERVER_ERROR ${reason} ${limit}\r`;
  return serveConnections({ hostname: "127.0.0.1", idleTimeout: 60_000, lastWords, ...options }, kvStore(maxBytes));
}

if (import.meta.main) {
  const server = serveStore({ port: Number(Deno.args[0] ?? 11211) });
  console.error(`listening on ${formatAddr(server.addr)}`);
}
