import { assertEquals } from "@std/assert";
import { RequestLine } from "../../internal/lines/misdirected.ts";
import { test } from "../kit/bounded.ts";
import { startServer } from "../kit/server.ts";

/** The first bytes of an HTTP/2 client with prior knowledge (RFC 9113): the preface and an empty SETTINGS frame. */
const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

test("HTTP/2 with prior knowledge is answered as HTTP is", async () => {
  await using t = startServer({ answerMisdirected: true });
  const body = "This port speaks lines of text, not HTTP.\n";
  const head = [
    "HTTP/1.1 400 Bad Request",
    "Content-Type: text/plain; charset=utf-8",
    `Content-Length: ${body.length}`,
    "Connection: close",
  ];
  assertEquals(await t.talk(PREFACE), [...head, "", body].join("\r\n"));
  assertEquals((await t.closed()).reason, "misdirected");
});

test("An HTTP request line is recognized up to 8 KiB, and a longer one is a line like any other", () => {
  const answered = (length: number) => {
    const line = new RequestLine();
    const bytes = new TextEncoder().encode("GET /".padEnd(length - 9, "a") + " HTTP/1.1\n");
    return Array.from(bytes, (byte) => line.take(byte)).find((answer) => answer !== undefined);
  };
  assertEquals([8191, 8192, 8193, 100_000].map(answered), [true, true, false, false]);
});
