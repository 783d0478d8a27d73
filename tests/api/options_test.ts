import { assertEquals, assertMatch, assertStrictEquals, assertThrows } from "@std/assert";
import { connectPool, type ConnOptions, serve, serveConnections, type ServeOptions } from "@x/shouty";
import { MemoryListener } from "@x/shouty/testing";
import { checkAccepted, checkProtocols, checkReadOptions } from "../../internal/api/check.ts";
import { limitOf, resolveConnOptions } from "../../internal/api/conn_options.ts";
import { delimitersOf } from "../../internal/api/framing.ts";
import { test } from "../kit/bounded.ts";
import { startServer } from "../kit/server.ts";

const TIME = /expected more than 0 and at most 2147483647 ms, or Infinity$/;
const RATE = /expected more than 0 per second, or Infinity$/;
const COUNT = /expected a whole number of at least 1, or Infinity$/;

/** Every option, with values that are wrong, and what the error says about allowed ones. */
const WRONG: [name: keyof ServeOptions, values: unknown[], allowed: RegExp][] = [
  ["hostname", [5, null, {}, ""], /expected (a string|an address or a host name)/],
  ["port", [-1, 65_536, 1.5, NaN, Infinity], /expected a whole number from 0 to 65535$/],
  ["listener", [{}, null, 5, "tcp", { accept() {} }], /expected a listener/],
  ["signal", [{}, null, "abort", new AbortController(), { addEventListener() {} }], /expected an AbortSignal/],
  ["clock", [{}, null, { now: 1 }, { now() {} }], /expected a clock/],
  ["onListen", [{}, null, "log"], /expected a function/],
  ["onEvent", [{}, null, "log"], /expected a function/],
  ["lastWords", [{}, null, "error"], /expected a function/],
  ["framing", [5, null, { lineEnd: "cr" }, { lineEnd: { delimiter: "" } }, { encoding: "latin-1" }], /expected/],
  ["data", [{}, null, "x"], /expected a function/],
  ["admit", [{}, null, "x"], /expected a function/],
  ["admitTimeout", [0, -5, NaN, 2 ** 31], TIME],
  ["idleOn", ["", "write", 1, null], /expected "both" or "read"$/],
  ["minBytesPerSecond", [-1, NaN, Infinity], /expected more than 0 per second, or 0$/],
  ["maxConnections", [0, -1, 2.5, NaN, 2 ** 53], COUNT],
  ["maxConnectionsPerIp", [0, -1, 2.5, NaN], COUNT],
  ["atCapacity", ["", "Wait", 1, null], /expected "reject" or "wait"$/],
  ["acceptRate", [0, -1, NaN], RATE],
  ["acceptRatePerIp", [0, -1, NaN], RATE],
  ["maxPenaltyMs", [-1, 999, NaN, Infinity, 2 ** 31], /expected 0, or 1000 to 2147483647 ms$/],
  ["allow", [5, ["nowhere"], ["10.0.0.0/33"], [5], [Symbol("here")]], /expected/],
  ["deny", [5, "10.0.0.1", ["nowhere"], ["::/129"], [5]], /expected/],
  ["drain", ["", "Linger", 1, null, Symbol("now")], /expected "linger" or "finish"$/],
  ["drainTimeout", [0, -5, NaN, 2 ** 31], TIME],
  ["drainDelay", [-1, NaN, Infinity, 2 ** 31], /expected 0 to 2147483647 ms$/],
  ["drainSpread", [-1, NaN, Infinity, 2 ** 31], /expected 0 to 2147483647 ms$/],
  ["firstLineTimeout", [0, -5, NaN, 2 ** 31], TIME],
  ["maxLines", [0, -1, 2.5, NaN], COUNT],
  ["maxLinesPerSecond", [0, -1, NaN], RATE],
  ["maxBytesPerSecond", [0, -1, NaN], RATE],
  ["maxBufferedBytes", [0, -1, 2.5, NaN], COUNT],
  ["answerMisdirected", [1, "yes", null], /expected true or false$/],
  ["independentLines", [1, "yes", null], /expected true or false$/],
  ["idleTimeout", [0, -5, NaN, 2 ** 31], TIME],
  ["lineTimeout", [0, -5, NaN, 2 ** 31], TIME],
  ["writeTimeout", [0, -5, NaN, 2 ** 31], TIME],
  ["keepAliveMs", [0, 999, NaN, 32_767_001], /expected 1000 to 32767000 ms, or Infinity$/],
  ["handlerTimeout", [0, -5, NaN, 2 ** 31], TIME],
  ["halfCloseTimeout", [0, -5, NaN, 2 ** 31], TIME],
  ["maxAge", [0, -5, NaN, 2 ** 31], TIME],
  ["maxLineBytes", [0, -1, 1.5, NaN, Infinity, 2 ** 28 + 1], /expected a whole number from 1 to 268435456$/],
  ["maxConnectionBytes", [0, -1, 1.5, NaN], COUNT],
  ["maxQueuedBytes", [0, -1, 1.5, NaN], COUNT],
];

const NUMBERS = WRONG.filter(([, , allowed]) => /number|ms/.test(allowed.source));

for (const [name, values, allowed] of WRONG) {
  test(`serve() refuses a wrong ${name}, says what is allowed, and binds nothing`, () => {
    const { listen } = Deno;
    Deno.listen = () => {
      throw new Error("It binds");
    };
    try {
      for (const value of values) {
        const options = { hostname: "127.0.0.1", port: 0, [name]: value } as ServeOptions;
        for (const start of [() => serve(options), () => serveConnections(options, () => {})]) {
          const { message } = assertThrows(start, Error);
          assertMatch(message, new RegExp(`^Cannot use ${name}\\b.*: expected`));
          assertMatch(message, allowed);
          assertEquals(message.includes(shown(value)), true, message);
        }
      }
    } finally {
      Deno.listen = listen;
    }
  });
}

/** The least and the largest value of options, and others that are allowed. */
const RIGHT: Partial<Record<keyof ServeOptions, readonly unknown[]>> = {
  idleTimeout: [0.1, 2 ** 31 - 1, Infinity],
  keepAliveMs: [1000, 32_767_000, Infinity],
  maxPenaltyMs: [0, 1000, 2 ** 31 - 1],
  drainDelay: [0, 2 ** 31 - 1],
  drainSpread: [0, 10_000],
  maxLineBytes: [1, 2 ** 28],
  maxConnections: [1, 2 ** 53 - 1, Infinity],
  minBytesPerSecond: [0, 0.001],
  acceptRate: [0.001, Infinity],
  framing: [{ lineEnd: { delimiter: "x".repeat(16) } }, { lineEnd: { delimiter: Uint8Array.of(0) } }],
};

for (const [name, values] of Object.entries(RIGHT)) {
  test(`serve() takes each ${name} that is allowed`, async () => {
    for (const value of values) {
      await serve({ listener: new MemoryListener(), [name]: value } as ServeOptions).shutdown({ delay: 0 });
    }
  });
}

test("serve() names what is wrong in a framing, and what is allowed", () => {
  const wrong = {
    'encoding "ascii": expected "utf-8" or "latin1"': { encoding: "ascii" },
    'invalidText "drop": expected "replace" or "error"': { invalidText: "drop" },
    'unterminated 1: expected "line" or "drop" or "error"': { unterminated: 1 },
    'onLongLine "cut": expected "close" or "discard" or "truncate"': { onLongLine: "cut" },
    'lineEnd "cr": expected "any", "lf", "crlf" or { delimiter }': { lineEnd: "cr" },
    "lineEnd.delimiter: expected a string or a Uint8Array, got 10": { lineEnd: { delimiter: 10 } },
    "lineEnd.delimiter of 0 bytes: expected 1 to 16 bytes": { lineEnd: { delimiter: "" } },
    "lineEnd.delimiter of 17 bytes: expected 1 to 16 bytes": { lineEnd: { delimiter: "x".repeat(17) } },
    "lineEnd.delimiter U+0100: latin1 ends at U+00FF": { lineEnd: { delimiter: "\u0100" }, encoding: "latin1" },
  };
  for (const [message, framing] of Object.entries(wrong)) {
    const options = { listener: new MemoryListener(), framing } as ServeOptions;
    assertEquals(assertThrows(() => serve(options), Error).message, `Cannot use framing.${message}`);
  }
});

test("serve() refuses numbers given as text, and other values that are not numbers", () => {
  for (const [name] of NUMBERS) {
    for (const value of ["5", null, [5], true]) {
      const { message } = assertThrows(() => serve({ [name]: value } as ServeOptions), TypeError);
      assertMatch(message, new RegExp(`^Cannot use ${name} .+: expected a number$`));
    }
  }
});

test("serve() names every option of ServeOptions in its checks", async () => {
  const source = await Deno.readTextFile(new URL("../../internal/api/serve_options.ts", import.meta.url)) +
    await Deno.readTextFile(new URL("../../internal/api/conn_options.ts", import.meta.url));
  const interfaces = source.matchAll(/export interface (?:Serve|Conn)Options\b.*?\n}\n/gs);
  const names = [...interfaces].flatMap(([text]) => [...text.matchAll(/^ {2}(\w+)\?:/gm)].map(([, name]) => name));
  assertEquals(names.toSorted(), WRONG.map(([name]) => name as string).toSorted());
});

test("serve() takes Infinity for every limit that it can switch off", async () => {
  const off = { idleTimeout: Infinity, maxAge: Infinity, drainTimeout: Infinity, maxConnectionBytes: Infinity };
  await using t = startServer({ ...off, maxConnections: Infinity, maxQueuedBytes: Infinity });
  assertEquals(await t.talk("on\n"), "ON\n");
});

test("serve() refuses a handler where the options belong, and options where the handler belongs", () => {
  assertThrows(() => serve((() => "") as unknown as ServeOptions), TypeError, "expected an object, got a function");
  assertThrows(() => serve(null as unknown as ServeOptions), TypeError, "expected an object, got null");
  assertThrows(() => serve({}, {} as () => string), TypeError, "Cannot use handler: expected a function");
  const odd = Object.assign(() => "", { block: null }) as unknown as () => string;
  assertThrows(() => serve({}, odd), TypeError, "Cannot use handler.block: expected a function, got null");
  assertThrows(() => serveConnections({}, undefined as unknown as () => void), TypeError, "Cannot use handler");
  for (const start of [serveConnections, connectPool]) {
    assertThrows(() => start((() => {}) as never, undefined as never), TypeError, "expected an object, got a function");
  }
});

test("options that are a promise or an array are refused, as they would be taken for none", () => {
  assertThrows(() => serve(Promise.resolve({}) as ServeOptions), TypeError, "expected an object, got a promise");
  assertThrows(() => serve([] as ServeOptions), TypeError, "expected an object, got an array");
  assertThrows(() => serve({ port: 80n as never }), TypeError, "Cannot use port 80n: expected a number");
});

test("a method of a connection or a server that has lost its object throws", async () => {
  await using t = startServer({ listener: new MemoryListener() });
  await t.admitted();
  const [conn] = t.server.connections;
  for (
    const method of [conn.closeWrite, conn.write, conn.close, t.server.shutdown, t.server.broadcast] as (() => void)[]
  ) {
    assertThrows(() => method(), TypeError);
  }
  const message = "Cannot use broadcast options: expected an object, got null";
  assertThrows(() => t.server.broadcast("x", null as never), TypeError, message);
});

test("shutdown() refuses wrong options, and the server goes on", async () => {
  await using t = startServer();
  assertThrows(() => t.server.shutdown({ drain: "now" as "finish" }), TypeError, `Cannot use drain "now"`);
  assertThrows(() => t.server.shutdown({ drainTimeout: 0 }), RangeError, "Cannot use drainTimeout 0");
  assertThrows(() => t.server.shutdown({ delay: -1 }), RangeError, "Cannot use delay -1: expected 0 to 2147483647 ms");
  assertThrows(() => t.server.shutdown({ spread: Infinity }), RangeError, "Cannot use spread Infinity: expected 0 to");
  assertThrows(() => t.server.shutdown(null as unknown as object), TypeError, "Cannot use shutdown options");
  assertEquals(t.server.state, "listening");
  assertEquals(await t.talk("still here\n"), "STILL HERE\n");
});

test("serve() refuses a drainSpread that is longer than the drain", () => {
  const message = "Cannot use drainSpread 2000: expected at most drainTimeout, 1000 ms";
  assertThrows(() => serve({ drainSpread: 2000, drainTimeout: 1000 }), RangeError, message);
});

test("serve() throws what listening throws", () => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  assertThrows(() => serve({ hostname: "127.0.0.1", port: taken.addr.port }), Deno.errors.AddrInUse);
});

test("serve() uses the given listener, and reports its address before the first connection", async () => {
  const listener = new MemoryListener();
  const heard: Deno.Addr[] = [];
  await using t = startServer({ listener, port: 1, onListen: (addr) => heard.push(addr) });
  assertStrictEquals(t.server.addr, listener.addr);
  assertEquals(heard, [listener.addr]);
});

/** How an error quotes a value. */
function shown(value: unknown): string {
  return typeof value === "string" ? `"${value}"` : typeof value === "object" && value !== null ? "" : String(value);
}

test("Every option may be undefined, with the same effect as leaving it out", async () => {
  const names = WRONG.map(([name]) => [name, undefined]);
  const unset: { [Name in keyof Required<ServeOptions>]: undefined } = Object.fromEntries(names);
  // The type checker refuses this assignment if the type of an option leaves undefined out.
  const options: ServeOptions = unset;
  await using server = serve({ ...options, hostname: "127.0.0.1", port: 0 });
  await server.shutdown({ drain: undefined, drainTimeout: undefined });
});

test("An event has no key without a value", async () => {
  const listener = new MemoryListener();
  await using t = startServer({ deny: ["192.0.2.1"], listener });
  using _denied = listener.connect({ transport: "tcp", hostname: "192.0.2.1", port: 1 });
  assertEquals(Object.keys(await t.until("rejected")), ["type", "remoteAddr", "reason"]);
  await t.talk("hello\n");
  assertEquals("error" in await t.closed(), false);
});

test("protocols for ALPN have up to 255 bytes, and the delimiters of a read up to 1024", () => {
  checkProtocols(["x".repeat(255), "é".repeat(127)]);
  for (const wrong of ["", "x".repeat(256), "é".repeat(128), "\ud800"]) {
    assertThrows(() => checkProtocols(["imap", wrong]), RangeError, "expected names of 1 to 255 bytes, got");
  }
  assertEquals(delimitersOf("x".repeat(1024), "utf-8")[0].length, 1024);
  assertThrows(() => delimitersOf("x".repeat(1025), "utf-8"), RangeError, "expected 1 to 1024 bytes");
});

test("the clocks that are not set go by idleTimeout, each of those that are set by itself", () => {
  const times = (options: ConnOptions) => {
    const { firstLineTimeout, lineTimeout, writeTimeout } = resolveConnOptions(options);
    return [firstLineTimeout, lineTimeout, writeTimeout];
  };
  assertEquals(times({}), [10_000, 10_000, 10_000]);
  assertEquals(times({ idleTimeout: 7 }), [7, 7, 7]);
  const set = { idleTimeout: 7, firstLineTimeout: 1, lineTimeout: 2, writeTimeout: Infinity };
  assertEquals(times(set), [1, 2, Infinity]);
});

test("lastWords gets the value of the limit that a reason names", () => {
  const limits = resolveConnOptions({
    ...{ firstLineTimeout: 1, idleTimeout: 2, lineTimeout: 3, handlerTimeout: 4, maxAge: 5 },
    ...{ maxLines: 6, maxLineBytes: 7, maxConnectionBytes: 8, minBytesPerSecond: 9 },
  });
  const timed = ["first-line-timeout", "idle", "line-timeout", "handler-timeout", "max-age"] as const;
  const sized = ["max-lines", "line-too-long", "byte-limit", "read-rate"] as const;
  assertEquals([...timed, ...sized].map((reason) => limitOf(reason, limits)), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assertEquals(limitOf("end", limits), 0);
});

test("a transport has to read, write and close, and a read's signal has what an AbortSignal has", () => {
  const call = () => {};
  checkAccepted({ read: call, write: call, close: call });
  for (const part of [{ write: call, close: call }, { read: call, close: call }, { read: call, write: call }]) {
    assertThrows(() => checkAccepted(part), TypeError, "Cannot use what accept returned: expected a transport");
  }
  const signal = { addEventListener: call } as unknown as AbortSignal;
  assertThrows(() => checkReadOptions({ signal }), TypeError, "Cannot use signal: expected an AbortSignal");
});
