import { assertEquals, assertLess, assertMatch, assertRejects } from "@std/assert";
import { type Answer, connectTo, parse, readAll, send, startAdmin, TOKEN } from "../../kit/admin/admin.ts";
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
