import { assertEquals, assertLessOrEqual, assertStringIncludes } from "@std/assert";
import { RequestLine, TlsRecord } from "../../internal/lines/misdirected.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory, startServer } from "../kit/server.ts";
import { countWork } from "../kit/workers/work.ts";

const CLIENT_HELLO = new Uint8Array([22, 3, 1, 0, 5, 1, 0, 0, 1, 0]);

test("HTTP at the plain port is answered in HTTP, and TLS with an alert", async () => {
  await using t = startServer({ answerMisdirected: true });
  const answer = await t.talk("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  assertStringIncludes(answer, "HTTP/1.1 400 Bad Request\r\n");
  assertStringIncludes(answer, "speaks lines of text");
  const { reason, bytesIn } = await t.closed();
  assertEquals([reason, bytesIn > 15], ["misdirected", true]);

  using client = await t.connect();
  await client.write(CLIENT_HELLO);
  assertEquals(await client.read(), new Uint8Array([21, 3, 1, 0, 2, 2, 40]));
  assertEquals(await client.read(), null);
  client.close();
  assertEquals((await t.closed(2)).reason, "misdirected");
});

test("HTTP is a line like any other after the first line, and if answerMisdirected is off", async () => {
  await using on = startServer({ answerMisdirected: true });
  const client = await on.connect();
  for (const line of ["hello", "GET / HTTP/1.1"]) {
    await client.write(`${line}\n`);
    assertEquals(await client.readLine(), line.toUpperCase());
  }
  await using off = startServer();
  assertEquals(await off.talk("get / HTTP/1.1\n"), "GET / HTTP/1.1\n");
});

testOnce("Only a whole request line of HTTP/1, or a TLS handshake's first three bytes, is misdirected", () => {
  const first = (look: RequestLine | TlsRecord, bytes: Uint8Array) =>
    Array.from(bytes, (byte) => look.take(byte)).find((answer) => answer !== undefined);
  const answered = (text: string) => first(new RequestLine(), new TextEncoder().encode(text));
  const requests = [
    ...["GET / HTTP/1.1\n", "PRI * HTTP/1.0\r\n", "PRI * HTTP/2.0\r\n", "POST /a?b HTTP/1.1\r\n"],
    ...["AZ \xff HTTP/1.9\n", "PRI * HTTP/1.1\n"],
  ];
  assertEquals(requests.map(answered), requests.map(() => true));
  const others = [
    ...["GET / HTTP/2.0", "get / HTTP/1.1", "GET /a b HTTP/1.1", "GET  / HTTP/1.1", "GET / HTTP/1.12", "GET /", ""],
    ...[
      "GET / HTTP/1.",
      "GET / HTTP/1.1 ",
      "GET / HTTP/1.1\r\r",
      "GET / HTTP/1x1",
      "GET / HTTPS/1.1",
      "GET / / HTTP/1.1",
    ],
    ...["PRI * HTTP/3.0", "PRI / HTTP/2.0", "G@T / HTTP/1.1", "G[T / HTTP/1.1", " / HTTP/1.1", "GET \t HTTP/1.1"],
  ].map((line) => `${line}\n`);
  assertEquals(others.map(answered), others.map(() => false));
  const longest = (bytes: number) => `GET /${"x".repeat(bytes - "GET / HTTP/1.1\r".length)} HTTP/1.1\r\n`;
  assertEquals([answered(longest(8192)), answered(longest(8193))], [true, false]);
  for (const minor of [0, 1, 2, 3, 4]) assertEquals(first(new TlsRecord(), Uint8Array.of(22, 3, minor)), true);
  assertEquals(first(new TlsRecord(), CLIENT_HELLO.subarray(0, 2)), undefined);
  for (const other of [[22, 3, 5], [22, 2], [21]]) assertEquals(first(new TlsRecord(), Uint8Array.from(other)), false);
});

testOnce("Looking for misdirected clients does linear work for a line of 64 KiB that comes byte by byte", async () => {
  const { listener } = inMemory();
  await using t = startServer({ listener, answerMisdirected: true });
  const client = await t.admitted();
  using work = countWork();
  const length = 65_536;
  for (let i = 0; i < length; i++) await client.write("x");
  await client.write("\n");
  assertEquals((await client.readLine())?.length, length);
  assertLessOrEqual(work.searched, 4 * length);
});
