import { assert, assertEquals, assertLess, assertMatch, assertStringIncludes } from "@std/assert";
import type { Answer as AnswerOf } from "../../../ops/admin/http/carrier.ts";
import { connectTo, parse, readAll, send, startAdmin, startCarrier } from "../../kit/admin/admin.ts";
import { test } from "../../kit/bounded.ts";

const ENCODER = new TextEncoder();
const READY = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/** Times that no test reaches. */
const PATIENT = { headMs: 120_000, requestMs: 120_000 };

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
