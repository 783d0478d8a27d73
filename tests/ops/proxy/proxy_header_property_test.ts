import { assert, assertEquals } from "@std/assert";
import { ProxyHeaderError } from "../../../ops/proxy/errors.ts";
import { beginsWithProxyHeader, MARK_BYTES, MAX_HEADER_BYTES, parseProxyHeader } from "../../../ops/proxy/header.ts";
import * as fc from "../../kit/framing/fast_check.ts";
import { bytesOf } from "../../kit/bytes.ts";
import { aboutTls, binary, join, LONGEST, TCP4, TCP6, value, withChecksum } from "../../kit/framing/proxy_headers.ts";

const HEADERS: [name: string, header: Uint8Array][] = [
  ["TCP4 in version 1", bytesOf("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n")],
  ["TCP6 in version 1", bytesOf("PROXY TCP6 2001:db8::1 ::1 56324 443\r\n")],
  ["UNKNOWN in version 1", bytesOf(LONGEST)],
  ["TCP4 in version 2", binary(0x21, 0x11, join(TCP4, value(0x04, "padding")))],
  ["TCP6 in version 2", withChecksum((sum) => binary(0x21, 0x21, join(TCP6, value(0x03, sum))))],
  ["TLS in version 2", binary(0x21, 0x11, join(TCP4, aboutTls(value(0x21, "TLSv1.3"), value(0x22, "client"))))],
  ["LOCAL in version 2", binary(0x20, 0x00, new Uint8Array(0))],
];

for (const [name, header] of HEADERS) {
  Deno.test(`A header is complete at its last byte, not before, and takes none after it: ${name}`, () => {
    for (let cut = 0; cut < header.length; cut++) {
      assertEquals(parseProxyHeader(header.subarray(0, cut)), undefined, `${cut}`);
    }
    const whole = parseProxyHeader(header);
    assertEquals(whole?.length, header.length);
    for (const after of ["x", "\r\n", "PROXY UNKNOWN\r\n", "\n".repeat(5000)]) {
      assertEquals(parseProxyHeader(join(header, bytesOf(after))), whole);
    }
    // The header may begin anywhere in its memory.
    assertEquals(parseProxyHeader(join(bytesOf("before"), header).subarray(6)), whole);
  });
}

/** Bytes that begin like headers. */
const GARBAGE = fc.oneof(
  fc.uint8Array({ maxLength: 200 }),
  fc.tuple(fc.constantFrom(...HEADERS), fc.nat(250), fc.uint8Array({ maxLength: 80 })).map(([[, header], at, bytes]) =>
    join(header.subarray(0, at), bytes, header.subarray(at + bytes.length))
  ),
  fc.tuple(fc.integer({ min: 0x1e, max: 0x23 }), fc.nat(0x33), fc.uint8Array({ maxLength: 260 })).map((parts) =>
    binary(...parts)
  ),
  fc.array(
    fc.constantFrom("PROXY", " ", "TCP4", "TCP6", "UNKNOWN", "1.2.3.4", "::1", "80", "\r", "\n", "\r\n", "__proto__"),
  )
    .map((words) => bytesOf(words.join(""))),
);

/** The result of parsing bytes: a header, `"more"`, or a `ProxyHeaderError`. */
function outcome(bytes: Uint8Array): unknown {
  try {
    return parseProxyHeader(bytes) ?? "more";
  } catch (error) {
    assert(error instanceof ProxyHeaderError, `${error}`);
    return error.message;
  }
}

Deno.test("Garbage gives the one error, and a verdict once given stands", () => {
  fc.assert(
    fc.property(GARBAGE, (bytes) => {
      let verdict: unknown = "more";
      for (let end = 0; end <= bytes.length; end++) {
        const now = outcome(bytes.subarray(0, end));
        if (verdict === "more") verdict = now;
        else assertEquals(now, verdict);
      }
      if (verdict !== "more" && typeof verdict !== "string") {
        assert((verdict as { length: number }).length <= bytes.length);
      }
    }),
    { numRuns: 2000 },
  );
});

Deno.test("No header needs more than its limit: nothing after that many bytes is looked at", () => {
  fc.assert(fc.property(GARBAGE, fc.uint8Array({ maxLength: 50 }), (bytes, more) => {
    const start = bytes[0] === 80 ? 107 : MAX_HEADER_BYTES;
    const full = join(bytes, new Uint8Array(Math.max(0, start - bytes.length)));
    const verdict = outcome(full);
    assert(verdict !== "more");
    assertEquals(outcome(join(full.subarray(0, start), more)), outcome(full.subarray(0, start)));
  }));
});

Deno.test("A header, well-formed or not, is told from anything else within 13 bytes", () => {
  assertEquals(MARK_BYTES, 13);
  for (const [, header] of HEADERS) {
    const told = Array.from({ length: header.length }, (_, end) => beginsWithProxyHeader(header.subarray(0, end)));
    const first = told.indexOf(true);
    assert(first <= MARK_BYTES && told.slice(0, first).every((verdict) => verdict === undefined));
    assert(told.slice(first).every((verdict) => verdict === true));
  }
  for (const text of ["hello", "PROXY server\n", "PROXY TCP", "PROXY \r\n", "\r\n\r\n\r\n", "\r\n\r\nhello\r\n"]) {
    assert(!beginsWithProxyHeader(bytesOf(text)), text);
  }
  assertEquals(beginsWithProxyHeader(bytesOf("PROXY war\n")), false);
  assertEquals(beginsWithProxyHeader(bytesOf("\r\n\r\n")), undefined);
});
