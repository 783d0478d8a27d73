import { assert, assertEquals, assertLess, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import type { Answer as AnswerOf } from "../../../ops/admin/http/carrier.ts";
import {
  type Answer,
  connectTo,
  parse,
  readAll,
  send,
  startAdmin,
  startCarrier,
  TOKEN,
} from "../../kit/admin/admin.ts";
import { test } from "../../kit/bounded.ts";

const ENCODER = new TextEncoder();
const READY = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/** Times that no test reaches. */
const PATIENT = { headMs: 120_000, requestMs: 120_000 };

test("a client that sends a request slowly loses its place, and is told", async () => {
  await using admin = await startAdmin({ bounds: { headMs: 200, requestMs: 400 } });
  const beginnings = [
    "",
    "GET /readyz HTTP/1.1\r\nHost: loc",
    "POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
  ];
  const told = (beginning: string) => unlessLost(async () => parse(await send(admin.port.addr, beginning)));
  const answers = await Promise.all(beginnings.map(told));
  for (const [i, { status, body }] of answers.entries()) {
    assertEquals([status, body], [408, '{"error":"Cannot read the request: too slow"}\n'], beginnings[i]);
  }
  assertEquals((await inTime(() => admin.ask("GET /readyz"))).body, "ready\n");
});

test("a client that keeps its connection and asks no more loses its place", async () => {
  await using admin = await startAdmin({ bounds: { idleMs: 100, headMs: 300 } });
  const request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const { body } = await inTime(async () => parse(await send(admin.port.addr, request)));
  assertEquals(body, "ready\n");
});

/** Asks again as long as the answer is lost: it is if the machine stands still before the port reads what was sent. */
async function unlessLost(ask: () => Promise<Answer>): Promise<Answer> {
  for (;;) {
    const answer = await ask();
    if (!isNaN(answer.status)) return answer;
  }
}

/** Asks again as long as the request was too slow, which it is if the machine stands still before it is read. */
async function inTime(ask: () => Promise<Answer>): Promise<Answer> {
  for (;;) {
    const answer = await unlessLost(ask);
    if (answer.status !== 408) return answer;
  }
}

test("a client that keeps its connection can ask again", async () => {
  await using admin = await startAdmin();
  using conn = await connectTo(admin.port.addr);
  const request = ENCODER.encode("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
  for (let i = 0; i < 3; i++) {
    await conn.write(request);
    const buffer = new Uint8Array(4096);
    let text = "";
    while (!text.endsWith("\r\n\r\nok\n")) {
      text += new TextDecoder().decode(buffer.subarray(0, (await conn.read(buffer))!));
    }
  }
});

test("a client that ends its side behind its request gets its answer, and behind anything else loses its connection", async () => {
  await using admin = await startAdmin();
  const ended = async (text: string) => {
    using conn = await connectTo(admin.port.addr);
    await conn.write(ENCODER.encode(text));
    await conn.closeWrite();
    return await readAll(conn);
  };
  const patch = 'PATCH /limits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{"maxConnections":7}';
  const { status, body } = parse(await ended(patch));
  assertEquals([status, JSON.parse(body).maxConnections], [200, 7]);
  assertEquals(parse(await ended(READY)).status, 200);
  assertEquals(await ended(""), "");
  for (const cut of [READY, patch]) assertMatch(await ended(cut.slice(0, -3)), /^$|^HTTP\/1.1 400 /, cut);
});

test("silent clients, however many, keep nobody out: the one that is silent for longest makes room", async () => {
  await using admin = await startAdmin({ bounds: { connections: 4, ...PATIENT } });
  const silent: Deno.Conn[] = [];
  try {
    for (let i = 0; i < 4; i++) silent.push(await connectTo(admin.port.addr));
    for (let i = 0; i < 3; i++) assertEquals((await admin.ask("GET /readyz")).body, "ready\n");
    assertEquals(await readAll(silent[0]), "");
    for (let i = 0; i < 20; i++) silent.push(await connectTo(admin.port.addr));
    await Promise.all(silent.slice(0, 18).map(readAll));
    assertEquals((await admin.ask("GET /readyz")).body, "ready\n");
  } finally {
    silent.forEach((conn) => conn.close());
  }
});

test("clients that send their bodies slowly keep nobody out", async () => {
  await using admin = await startAdmin({ token: TOKEN, bounds: { connections: 3, ...PATIENT } });
  const slow: Deno.Conn[] = [];
  try {
    for (let i = 0; i < 3; i++) {
      const conn = await connectTo(admin.port.addr);
      await conn.write(ENCODER.encode("POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\ntoken="));
      slow.push(conn);
    }
    for (let i = 0; i < 5; i++) assertEquals((await admin.ask("GET /readyz")).body, "ready\n");
    assertEquals(await readAll(slow[0]), "");
  } finally {
    slow.forEach((conn) => conn.close());
  }
});

test("a head of more than 8 KiB and a body of more than 64 KiB are refused, and smaller ones are not", async () => {
  await using admin = await startAdmin();
  const padding = (bytes: number) => ({ headers: { "X-Padding": "x".repeat(bytes) } });
  assertEquals((await admin.ask("GET /readyz", padding(7 * 1024))).status, 200);
  const { status, body } = await admin.ask("GET /readyz", padding(9 * 1024));
  assertEquals([status, body], [431, '{"error":"Cannot read the request: too large"}\n']);
  assertEquals((await admin.ask(`GET /${"x".repeat(9 * 1024)}`)).status, 431);
  const refusal = '{"error":"Cannot use a body of more than 65536 bytes"}\n';
  const blank = (bytes: number) => ({ body: " ".repeat(bytes) });
  assertEquals((await admin.ask("PATCH /limits", blank(65_536))).status, 200);
  const large = await admin.ask("PATCH /limits", blank(65_537));
  assertEquals([large.status, large.body], [413, refusal]);
  // This one never ends: it is refused as soon as it is too long.
  const head = "PATCH /limits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n";
  const endless = parse(await send(admin.port.addr, head + " ".repeat(65_537)));
  assertEquals([endless.status, endless.headers.get("connection"), endless.body], [413, "close", refusal]);
});

test("a body in chunks is refused at once, also one of which a chunk's extension never ends, and the connection is closed", async () => {
  await using admin = await startAdmin({ token: TOKEN });
  const refusal = '{"error":"Cannot use Transfer-Encoding: expected a body with Content-Length"}\n';
  const head = (target: string) => `${target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n`;
  for (const target of ["POST /login", "PATCH /limits", "GET /healthz"]) {
    for (const text of ["5\r\nto", `2;${"a".repeat(10_000)}`]) {
      const { status, headers, body } = parse(await send(admin.port.addr, head(target) + text));
      assertEquals([status, headers.get("connection"), body], [411, "close", refusal]);
    }
  }
  using conn = await connectTo(admin.port.addr);
  await conn.write(ENCODER.encode(`${head("POST /login")}2;`));
  const extension = new Uint8Array(64 * 1024).fill(0x61);
  let written = 0;
  await assertRejects(async () => {
    for (; written < 2 ** 30; written += extension.length) await conn.write(extension);
  });
  assertLess(written, 2 ** 30);
});

test("what is no request is refused", async () => {
  await using admin = await startAdmin();
  for (const text of ["hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]) {
    const { status, body } = parse(await send(admin.port.addr, text));
    assertEquals([status, body], [400, '{"error":"Cannot read the request: not HTTP"}\n'], text);
  }
  assertEquals(parse(await send(admin.port.addr, "CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n")).status || 0, 0);
  const upgrade =
    "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n";
  assertEquals(parse(await send(admin.port.addr, upgrade)).body, "ok\n");
});

test("a client that sends the next request before the answer loses its connection", async () => {
  await using admin = await startAdmin();
  const text = await send(admin.port.addr, "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000));
  // One answer may have been on its way.
  assertLess(text.split("HTTP/1.1 ").length, 3);
  assertEquals((await admin.ask("GET /readyz")).body, "ready\n");
});

const LARGE = 32 * 1024 * 1024;

test("a client that does not take its answer loses its connection", async () => {
  const large = "x".repeat(LARGE);
  const answer = () => Promise.resolve({ status: 200, body: large });
  await using carrier = await startCarrier(answer, () => 0, { replyMs: 300 });
  using conn = await connectTo(carrier.addr);
  await conn.write(ENCODER.encode(READY));
  // It begins to read when the time is up.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  assertLess((await readAll(conn)).length, LARGE);
});

test("clients that do not take their answers keep nobody out, and take no place of a stream", async () => {
  const large = "x".repeat(LARGE);
  const answer: AnswerOf = ({ path }) => {
    if (path === "/stream") return Promise.resolve("stream");
    return Promise.resolve({ status: 200, body: path === "/large" ? large : "small" });
  };
  await using carrier = await startCarrier(answer, () => 0, { connections: 4, eventMs: 20 });
  const get = (path: string) => ENCODER.encode(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
  const conns: Deno.Conn[] = [];
  try {
    for (const path of ["/stream", "/large", "/large", "/large"]) {
      const conn = await connectTo(carrier.addr);
      conns.push(conn);
      await conn.write(get(path));
      // The answer has begun, so the request is whole.
      await conn.read(new Uint8Array(1));
    }
    for (let i = 0; i < 3; i++) {
      assertEquals(parse(await send(carrier.addr, new TextDecoder().decode(get("/small")))).body, "small");
    }
    assertLess((await readAll(conns[1])).length, LARGE);
    const text = new TextDecoderStream();
    const events = conns[0].readable.pipeThrough(text).getReader();
    for (let i = 0, all = ""; i < 3; i = all.split("event: status").length) all += (await events.read()).value;
    await events.cancel();
  } finally {
    for (const conn of conns.slice(1)) conn.close();
  }
});

test("an answer that never comes takes its client's connection with it", async () => {
  await using carrier = await startCarrier(() => new Promise(() => {}), () => 0, { replyMs: 100 });
  assertEquals(await send(carrier.addr, READY), "");
});

test("an answer that fails is one of 500", async () => {
  await using carrier = await startCarrier(() => Promise.reject(new Error("No figures")), () => 0, {});
  const { status, body } = parse(await send(carrier.addr, READY));
  assertEquals([status, body], [500, '{"error":"Cannot answer: No figures"}\n']);
});

test("a client that does not take its events loses its stream, and at most one event waits for it", async () => {
  const large = "x".repeat(LARGE);
  let events = 0;
  const event = () => ++events && large;
  await using carrier = await startCarrier(() => Promise.resolve("stream"), event, { eventMs: 20, eventTakenMs: 200 });
  using stuck = await connectTo(carrier.addr);
  await stuck.write(ENCODER.encode(READY));
  await new Promise((resolve) => setTimeout(resolve, 1000));
  assertLess((await readAll(stuck)).length, LARGE);
  assertEquals(events, 1);
});

test("a stream ends after its time, and the next one begins", async () => {
  await using carrier = await startCarrier(() => Promise.resolve("stream"), () => 0, { eventMs: 20, streamMs: 100 });
  const text = await send(carrier.addr, READY);
  assertStringIncludes(text, "retry: 1000");
  assertStringIncludes(text, "event: status\ndata: 0\n\n");
});

test("an admin port sends events to ten clients and no more, and a last one at its end", async () => {
  await using admin = await startAdmin({ bounds: { eventMs: 60_000 } });
  const ask = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
  const streams = Array.from({ length: 10 }, () => connectTo(admin.port.addr));
  const texts = [];
  for (const stream of streams) {
    const conn = await stream;
    await conn.write(ENCODER.encode(ask));
    const buffer = new Uint8Array(65_536);
    const first = new TextDecoder().decode(buffer.subarray(0, (await conn.read(buffer))!));
    texts.push(
      readAll(conn).then((rest) => {
        conn.close();
        return first + rest;
      }),
    );
  }
  const { status, headers, body } = parse(
    await send(admin.port.addr, ask.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")),
  );
  assertEquals([status, headers.get("retry-after")], [503, "10"]);
  assertEquals(body, '{"error":"Cannot send events: 10 clients get them already"}\n');
  const head = await admin.ask("HEAD /events");
  assertEquals([head.status, head.body], [200, ""]);
  await admin.t.server.shutdown();
  await admin.port.close();
  for (const text of await Promise.all(texts)) {
    assertMatch(text, /^HTTP\/1\.1 200 OK\r\n/);
    assertMatch(text, /\r\ncontent-type: text\/event-stream\r\n/i);
    const states = Array.from(text.matchAll(/^event: status\ndata: (.*)\n\n/gm), ([, data]) => JSON.parse(data).state);
    assertEquals([states[0], states.at(-1)], ["listening", "closed"]);
  }
});

test("an admin port that closes waits for no client that is silent, and half a second for one that takes its answer", async () => {
  const admin = await startAdmin({ bounds: { ...PATIENT, replyMs: 120_000 } });
  const beginnings = ["", "GET /rea", "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\ntoken"];
  const conns: Deno.Conn[] = [];
  for (const beginning of beginnings) {
    const conn = await connectTo(admin.port.addr);
    await conn.write(ENCODER.encode(beginning));
    conns.push(conn);
  }
  assertEquals((await admin.ask("GET /readyz")).status, 200);
  await admin.port.close();
  for (const conn of conns) {
    assertEquals(await readAll(conn), "");
    conn.close();
  }
  await admin[Symbol.asyncDispose]();
});

test("a client that leaves its stream makes room for the next", async () => {
  await using admin = await startAdmin({ bounds: { streams: 1 } });
  const ask = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
  for (let i = 0; i < 3; i++) {
    let text = "";
    // The port may hear of the end of the stream before only now.
    while (!text.includes("event: status")) {
      using conn = await connectTo(admin.port.addr);
      await conn.write(ENCODER.encode(ask));
      const buffer = new Uint8Array(65_536);
      text = new TextDecoder().decode(buffer.subarray(0, (await conn.read(buffer)) ?? 0));
      assert(/^HTTP\/1\.1 (200|503) /.test(text));
      while (text.startsWith("HTTP/1.1 200") && !text.includes("data: ")) {
        text += new TextDecoder().decode(buffer.subarray(0, (await conn.read(buffer)) ?? 0));
      }
    }
  }
});
