import { assertEquals } from "@std/assert";
import { count, escapeUnsafe, quote } from "../../internal/api/errors.ts";
import { formatAddr } from "../../internal/api/transport.ts";

/** Unsafe characters by their codes, since most of them are invisible. */
const UNSAFE = [
  ...[0x00, 0x07, 0x09, 0x0a, 0x0d, 0x1b, 0x1f, 0x7f, 0x80, 0x85, 0x9b, 0x9f, 0x2028, 0x2029],
  ...[0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069, 0x200e, 0x200f, 0x061c],
  ...[0xd800, 0xdbff, 0xdc00, 0xdfff],
];

Deno.test("quote() escapes every character that could forge or hide a line", () => {
  for (const code of UNSAFE) {
    const text = `a${String.fromCharCode(code)}b`;
    const escape = `\\u${code.toString(16).padStart(4, "0")}`;
    assertEquals(escapeUnsafe(text), `a${escape}b`);
    assertEquals(JSON.parse(quote(text)), text, "Nothing is lost");
    assertEquals(escapeUnsafe(quote(text)), quote(text), "Nothing is left");
    assertEquals(formatAddr({ transport: "unix", path: text }), `unix:a${escape}b`);
  }
});

Deno.test("quote() leaves safe characters as they are", () => {
  const text = "Grüße, \u{1f600} 日本語 \u05d0 ~ \u00a0\u2027";
  assertEquals([escapeUnsafe(text), quote(text)], [text, `"${text}"`]);
  assertEquals(quote('say "\\"'), String.raw`"say \"\\\""`);
});

Deno.test('formatAddr() of a socket without a path is "unix"', () => {
  assertEquals(formatAddr({ transport: "unix", path: "" }), "unix");
});

Deno.test("count() has no plural for 1", () => {
  assertEquals([0, 1, 2].map((number) => count(number, "line")), ["0 lines", "1 line", "2 lines"]);
});
