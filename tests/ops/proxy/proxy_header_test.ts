import { assert, assertEquals, assertThrows } from "@std/assert";
import { ProxyHeaderError } from "../../../ops/proxy/errors.ts";
import { crc32c } from "../../../ops/proxy/extensions.ts";
import { MAX_HEADER_BYTES, parseProxyHeader } from "../../../ops/proxy/header.ts";
import { bytesOf } from "../../kit/bytes.ts";
import {
  address,
  binary,
  join,
  LONGEST,
  SIGNATURE,
  TCP4,
  TCP6,
  value,
  withChecksum,
} from "../../kit/framing/proxy_headers.ts";

function tcp(hostname: string, port: number): Deno.NetAddr {
  return { transport: "tcp", hostname, port };
}

/** A header's addresses as text; `undefined` if the transport's own hold. */
function said(header: string | Uint8Array): [Deno.Addr, Deno.Addr] | undefined {
  const bytes = typeof header === "string" ? bytesOf(header) : header;
  const { length, addresses } = parseProxyHeader(bytes)!;
  assertEquals(length, bytes.length);
  return addresses && [addresses.remoteAddr, addresses.localAddr];
}

function refusal(header: string | Uint8Array): string {
  const bytes = typeof header === "string" ? bytesOf(header) : header;
  return assertThrows(() => parseProxyHeader(bytes), ProxyHeaderError).message.replace("Malformed PROXY header: ", "");
}

Deno.test("Version 1 tells both ends of a TCP connection", () => {
  assertEquals(said("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"), [
    tcp("192.168.0.1", 56_324),
    tcp("192.168.0.11", 443),
  ]);
  assertEquals(said("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n"), [
    tcp("255.255.255.255", 65_535),
    tcp("0.0.0.0", 0),
  ]);
  const full = "2001:0db8:0000:0000:0000:0000:0000:000F";
  assertEquals(said(`PROXY TCP6 ${full} ::1 1 2\r\n`), [tcp("2001:db8::f", 1), tcp("::1", 2)]);
});

Deno.test("Version 1 writes mapped IPv4 as HAProxy does, and the address reads as Deno's own", () => {
  assertEquals(said("PROXY TCP6 ::ffff:192.0.2.7 ::FFFF:C000:207 1 2\r\n"), [
    tcp("::ffff:192.0.2.7", 1),
    tcp("::ffff:192.0.2.7", 2),
  ]);
});

// By the specification, TCP4 and TCP6 name the family of the connection, and both addresses are of that family.
Deno.test("Version 1 takes a destination of the other family, which nginx writes where it knows the client from another proxy", () => {
  assertEquals(said("PROXY TCP6 2001:db8::7 192.0.2.1 1 2\r\n"), [tcp("2001:db8::7", 1), tcp("192.0.2.1", 2)]);
  assertEquals(said("PROXY TCP4 192.0.2.7 2001:db8::1 1 2\r\n"), [tcp("192.0.2.7", 1), tcp("2001:db8::1", 2)]);
});

Deno.test("Version 1 leaves the real addresses for UNKNOWN, whatever follows", () => {
  for (const rest of ["", " ", " ::1 ::1 1 2", " anything  at\0all \xff", "  "]) {
    assertEquals(said(`PROXY UNKNOWN${rest}\r\n`), undefined);
  }
  assertEquals(LONGEST.length, 107);
  assertEquals(said(LONGEST), undefined);
});

Deno.test("Version 1 refuses whatever is not its grammar", () => {
  const malformed: [line: string, message: string][] = [
    [" TCP4 1.2.3.4 5.6.7.8 1 2", `protocol ""`],
    ["TCP4", "0 fields after TCP4 instead of 4"],
    ["TCP4 ", "1 fields after TCP4 instead of 4"],
    ["TCP4 1.2.3.4 5.6.7.8 1", "3 fields after TCP4 instead of 4"],
    ["TCP4 1.2.3.4 5.6.7.8 1 2 3", "5 fields after TCP4 instead of 4"],
    ["TCP4 1.2.3.4 5.6.7.8 1 2 ", "5 fields after TCP4 instead of 4"],
    ["TCP4  1.2.3.4 5.6.7.8 1 2", "5 fields after TCP4 instead of 4"],
    ["TCP4 1.2.3.4  5.6.7.8 1 2", "5 fields after TCP4 instead of 4"],
    ["TCP4 1.2.3.4 5.6.7.8  1 2", "5 fields after TCP4 instead of 4"],
    ["TCP4 1.2.3.4 5.6.7.8 1  2", "5 fields after TCP4 instead of 4"],
    ["TCP4\t1.2.3.4\t5.6.7.8\t1\t2", String.raw`protocol "TCP4\t1.2.3.4\t5.6.7.8\t1\t2"`],
    ["TCP5 1.2.3.4 5.6.7.8 1 2", `protocol "TCP5"`],
    ["tcp4 1.2.3.4 5.6.7.8 1 2", `protocol "tcp4"`],
    ["UDP4 1.2.3.4 5.6.7.8 1 2", `protocol "UDP4"`],
    ["constructor 1.2.3.4 5.6.7.8 1 2", `protocol "constructor"`],
    ["unknown", `protocol "unknown"`],
    ["UNKNOWNS", `protocol "UNKNOWNS"`],
    ["TCP6 1.2.3.4 5.6.7.8 1 2", `IPv6 address "1.2.3.4"`],
    ["TCP4 ::1 ::1 1 2", `IPv4 address "::1"`],
  ];
  for (
    const address of ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.00", "1.2.3.-4", "1.2.3.4x", "1.2..4"]
  ) {
    malformed.push([`TCP4 ${address} 5.6.7.8 1 2`, `IPv4 address "${address}"`]);
    malformed.push([`TCP4 5.6.7.8 ${address} 1 2`, `IPv4 address "${address}"`]);
  }
  for (
    const address of [
      "",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1::2::3",
      ":::",
      ":1::",
      "1::2:",
      "12345::",
      "g::",
      "fe80::1%1",
    ]
      .concat("::1.2.3.256", "::1.2.3", "::01.2.3.4", "[::1]", "::1]:80/[")
  ) {
    malformed.push([`TCP6 ${address} ::1 1 2`, `IPv6 address "${address}"`]);
    malformed.push([`TCP6 ::1 ${address} 1 2`, `IPv6 address "${address}"`]);
  }
  for (const port of ["", "65536", "99999", "080", "00", "-1", "+1", "1.0", "0x1", "1e3", "http", "111111"]) {
    malformed.push([`TCP4 1.2.3.4 5.6.7.8 ${port} 2`, `port "${port}"`]);
    malformed.push([`TCP4 1.2.3.4 5.6.7.8 1 ${port}`, `port "${port}"`]);
  }
  for (const [line, message] of malformed) assertEquals(refusal(`PROXY ${line}\r\n`), message);
});

Deno.test("Version 1 ends at CRLF within 107 bytes, and at nothing else", () => {
  const line = "PROXY TCP4 1.2.3.4 5.6.7.8 1 2";
  for (const end of ["\n", "\n\n", "\rx", "\r\r\n", "\n\r\n"]) {
    assertEquals(refusal(line + end), "CR or LF alone instead of CRLF");
  }
  assertEquals(refusal("PROXY UNKNOWN x\ny\r\n"), "CR or LF alone instead of CRLF");
  assertEquals(refusal("PROXY UNKNOWN x\ry\r\n"), "CR or LF alone instead of CRLF");
  for (const tail of ["\r\n", "\r", "ff", "f\r\n", "f"]) {
    assertEquals(refusal(LONGEST.replace("\r\n", `f${tail}`)), "no CRLF within 107 bytes");
  }
});

Deno.test("A connection that begins with something else is refused at its first wrong byte", () => {
  const message = "No PROXY header: the connection begins with something else";
  const others = [
    "\n",
    "\rx",
    "GET / HTTP/1.1\r\n",
    "hello\n",
    "proxy TCP4",
    "PROXY\r\n",
    "PROXYTCP4",
    " PROXY ",
    "\x16\x03\x01",
  ];
  for (const text of [...others, SIGNATURE.slice(0, 11) + "\r"]) assertEquals(refusal(text), message);
});

Deno.test("Version 2 tells both ends of a TCP connection", () => {
  assertEquals(said(binary(0x21, 0x11, TCP4)), [tcp("192.168.0.1", 56_324), tcp("192.168.0.11", 443)]);
  assertEquals(said(binary(0x21, 0x21, TCP6)), [tcp("2001:db8::1", 56_324), tcp("::ffff:192.0.2.7", 443)]);
});

Deno.test("Version 2 tells the paths of a Unix connection", () => {
  const unix = (path: string) => ({ transport: "unix", path }) as const;
  const paths = join(address("/run/a.sock", 108), address("/" + "b".repeat(107), 108));
  assertEquals(said(binary(0x21, 0x31, paths)), [unix("/run/a.sock"), unix("/" + "b".repeat(107))]);
  const nameless = join(address("", 108), address("\0abstract", 108));
  assertEquals(said(binary(0x21, 0x31, nameless)), [unix(""), unix("")]);
  const forged = join(address("/x\ninfo listening", 108), address("", 108));
  assertEquals(refusal(binary(0x21, 0x31, forged)), String.raw`path "/x\ninfo listening"`);
});

Deno.test("Version 2 leaves the real addresses for LOCAL and for what the proxy does not name, whatever follows", () => {
  for (const rest of [new Uint8Array(0), TCP4, new Uint8Array(1), bytesOf("\x03\x00\x04nope")]) {
    for (const family of [0x00, 0x11, 0x12, 0x21, 0x31, 0xff]) {
      assertEquals(said(binary(0x20, family, rest)), undefined);
    }
    for (const family of [0x00, 0x01, 0x10, 0x20, 0x30]) assertEquals(said(binary(0x21, family, rest)), undefined);
  }
});

Deno.test("Version 2 takes extensions of any type, up to 4096 bytes in all", () => {
  const values = join(value(0x01, "h2"), value(0x04, ""), value(0xEE, "\0\xff"), value(0x02, "x".repeat(300)));
  assertEquals(said(binary(0x21, 0x11, join(TCP4, values))), [tcp("192.168.0.1", 56_324), tcp("192.168.0.11", 443)]);
  const most = MAX_HEADER_BYTES - 16 - TCP4.length - 3;
  assert(said(binary(0x21, 0x11, join(TCP4, value(0x04, "x".repeat(most))))));
  const tooLong = binary(0x21, 0x11, join(TCP4, value(0x04, "x".repeat(most + 1))));
  assertEquals(refusal(tooLong.subarray(0, 16)), "4097 bytes, more than 4096");
});

Deno.test("Version 2 verifies a checksum, wherever it stands", () => {
  assertEquals(crc32c(bytesOf("123456789")), 0xE3069283);
  assertEquals(crc32c(new Uint8Array(32)), 0x8A9136AA);
  for (const around of [[], [value(0x04, "before")], [value(0x04, "before"), value(0x05, "after")]]) {
    const [before = new Uint8Array(0), after = new Uint8Array(0)] = around;
    const header = withChecksum((sum) => binary(0x21, 0x11, join(TCP4, before, value(0x03, sum), after)));
    assert(said(header));
    for (let at = 16; at < header.length; at++) {
      const damaged = header.slice();
      damaged[at] ^= 0x40;
      // With a damaged type or length, it can be a header without a checksum, or no header.
      if (at < 28 || at >= header.length - after.length - 4) {
        assertEquals(refusal(damaged), "a checksum that is wrong", `${at}`);
      }
    }
  }
  const twice = withChecksum((sum) => binary(0x21, 0x11, join(TCP4, value(0x03, sum), value(0x03, "1234"))));
  assertEquals(refusal(twice), "two checksums");
  for (const sum of ["", "123", "12345"]) {
    assertEquals(refusal(binary(0x21, 0x11, join(TCP4, value(0x03, sum)))), `a checksum of ${sum.length} bytes`);
  }
});

Deno.test("Version 2 refuses what its specification does not assign, and what does not add up", () => {
  for (const version of [0, 1, 3, 15]) {
    assertEquals(refusal(binary(version << 4 | 1, 0x11, TCP4)), `version ${version}`);
  }
  for (const command of [2, 3, 15]) assertEquals(refusal(binary(0x20 | command, 0x11, TCP4)), `command ${command}`);
  for (const family of [4, 15]) assertEquals(refusal(binary(0x21, family << 4 | 1, TCP4)), `address family ${family}`);
  for (const transport of [3, 15]) {
    assertEquals(refusal(binary(0x21, 0x10 | transport, TCP4)), `transport ${transport}`);
  }
  for (const family of [0x12, 0x22, 0x32]) {
    assertEquals(refusal(binary(0x21, family, new Uint8Array(216))), "datagrams");
  }
  for (const [family, size] of [[0x11, 12], [0x21, 36], [0x31, 216]]) {
    for (const less of [1, size]) {
      const short = binary(0x21, family, new Uint8Array(size - less));
      assertEquals(refusal(short), `${16 + size - less} bytes, less than its addresses take`);
    }
  }
  for (const cut of ["\x04", "\x04\0", "\x04\0\x01", "\x04\0\x05four", "\x04\xff\xff"]) {
    assertEquals(refusal(binary(0x21, 0x11, join(TCP4, bytesOf(cut)))), "a value that is cut off");
  }
});
