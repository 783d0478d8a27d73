import { assertEquals, assertMatch, assertStrictEquals, assertThrows } from "@std/assert";
import { connectPool, serve, serveConnections, type ServeOptions } from "@x/shouty";
import { MemoryListener } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { startServer } from "../kit/server.ts";

const TIME = /expected more than 0 and at most 2147483647 ms, or Infinity$/;
const RATE = /expected more than 0 per second, or Infinity$/;
const COUNT = /expected a whole number of at least 1, or Infinity$/;

/** Every option, with values that are wrong, and what the error says about allowed ones. */
const WRONG: [name: keyof ServeOptions, values: unknown[], allowed: RegExp][] = [
  ["hostname", [5, null, {}, ""], /expected (a string|an address or a host name)/],
  ["port", [-1, 65_536, 1.5, NaN, Infinity], /expected a whole number from 0 to 65535$/],
  ["listener", [{}, null, 5, "tcp"], /expected a listener/],
  ["signal", [{}, null, "abort", new AbortController()], /expected an AbortSignal/],
  ["clock", [{}, null, { now: 1 }], /expected a clock/],
  ["onListen", [{}, null, "log"], /expected a function/],
  ["onEvent", [{}, null, "log"], /expected a function/],
  ["lastWords", [{}, null, "error"], /expected a function/],
  ["framing", [5, null, { lineEnd: "cr" }, { lineEnd: { delimiter: "" } }, { encoding: "latin-1" }], /expected/],
  ["data", [{}, null, "x"], /expected a function/],
  ["admit", [{}, null, "x"], /expected a function/],
  ["admitTimeout", [0, -5, NaN, 2 ** 31], TIME],
  ["idleOn", ["", "write", 1, null], /expected "both" or "read"$/],
  ["minBytesPerSecond", [-1, NaN, Infinity], /expected more than 0 per second, or 0$/],
  ["maxConnections", [0, -1, 2.5, NaN], COUNT],
  ["maxConnectionsPerIp", [0, -1, 2.5, NaN], COUNT],
  ["atCapacity", ["", "Wait", 1, null], /expected "reject" or "wait"$/],
  ["acceptRate", [0, -1, NaN], RATE],
  ["acceptRatePerIp", [0, -1, NaN], RATE],
  ["maxPenaltyMs", [-1, 999, NaN, Infinity, 2 ** 31], /expected 0, or 1000 to 2147483647 ms$/],
  ["allow", [5, ["nowhere"], ["10.0.0.0/33"], [5], [Symbol("here")]], /expected/],
  ["deny", [5, ["nowhere"], ["::/129"], [5]], /expected/],
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
        for (const start of [serve, serveConnections]) {
          const { message } = assertThrows(() => start(options, () => {}), Error);
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
