import { assert, assertEquals, assertThrows } from "@std/assert";
import type { ProxyInfo } from "@x/shouty";
import { proxyProtocol } from "@x/shouty/ops";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { ProxyHeaderError } from "../../../ops/proxy/errors.ts";
import { parseProxyHeader } from "../../../ops/proxy/header.ts";
import { test } from "../../kit/bounded.ts";
import { bytesOf } from "../../kit/bytes.ts";
import { aboutTls, address, binary, join, TCP4, TCP6, value, withChecksum } from "../../kit/framing/proxy_headers.ts";
import { HEADER, make, OTHER, PROXY, settle } from "../../kit/figures/proxy_memory.ts";
import { check, fc } from "../../kit/property.ts";
import { startServer } from "../../kit/server.ts";

/** What a header of TCP4 with these extensions says. */
function said(...extensions: Uint8Array[]): ProxyInfo {
  return parseProxyHeader(binary(0x21, 0x11, join(TCP4, ...extensions)))!.proxy!;
}

function refusal(...extensions: Uint8Array[]): string {
  return assertThrows(() => said(...extensions), ProxyHeaderError).message.replace("Malformed PROXY header: ", "");
}

Deno.test("A header's extensions are told by type, and those that are text as text too", () => {
  const [authority, unique] = [value(0x02, "example.org"), value(0x05, "\x01\xff")];
  const aws = value(0xEA, "\x01vpce-08d2bf15fac5001c9");
  assertEquals(said(value(0x01, "h2"), authority, unique, aws), {
    authority: "example.org",
    awsEndpointId: "vpce-08d2bf15fac5001c9",
    tlvs: new Map([
      [0x01, bytesOf("h2")],
      [0x02, bytesOf("example.org")],
      [0x05, bytesOf("\x01\xff")],
      [0xEA, bytesOf("\x01vpce-08d2bf15fac5001c9")],
    ]),
  });
});

Deno.test("What an extension about TLS holds is told by type, and the client's name as text", () => {
  const within = [value(0x21, "TLSv1.3"), value(0x22, "Gr\xc3\xa9goire"), value(0x23, "TLS_AES_128_GCM_SHA256")];
  const tls = aboutTls(...within);
  const { tlvs, ...texts } = said(value(0x04, ""), tls, value(0x02, "x"));
  assertEquals(texts, { authority: "x", tlsClientName: "Grégoire" });
  assertEquals([...tlvs.keys()], [0x04, 0x20, 0x21, 0x22, 0x23, 0x02]);
  assertEquals(tlvs.get(0x20), tls.slice(3));
  assertEquals(tlvs.get(0x22), bytesOf("Gr\xc3\xa9goire"));
});

Deno.test("The name in a certificate that the proxy could not verify is no client's name", () => {
  for (const verify of ["\0\0\0\x01", "\x01\0\0\0"]) {
    const tls = value(0x20, `\x07${verify}${String.fromCharCode(...value(0x22, "root"))}`);
    const { tlvs, ...texts } = said(tls);
    assertEquals([texts, tlvs.get(0x22)], [{}, bytesOf("root")]);
  }
  // Outside the extension about TLS, the type has another meaning, or none.
  assertEquals(said(value(0x22, "root")), { tlvs: new Map([[0x22, bytesOf("root")]]) });
});

Deno.test("If a type comes twice, the first value counts, and nothing of the second one", () => {
  const second = [value(0x02, "b"), aboutTls(value(0x21, "b"), value(0x22, "b")), value(0xEA, "\x01b")];
  assertEquals(said(value(0x02, "a"), aboutTls(value(0x21, "a")), value(0xEA, "\x02"), ...second), {
    authority: "a",
    tlvs: new Map([
      [0x02, bytesOf("a")],
      [0x20, aboutTls(value(0x21, "a")).slice(3)],
      [0x21, bytesOf("a")],
      [0xEA, bytesOf("\x02")],
    ]),
  });
  assertEquals(said(aboutTls(value(0x22, "a"), value(0x22, "b"))).tlsClientName, "a");
});

Deno.test("Texts are UTF-8 and otherwise as they come: empty, or with whatever a log has to quote", () => {
  for (const text of ["", "a\r\nb\0", "\x1b[31m", "\u202e", "\ufeffbom", "😀"]) {
    const bytes = String.fromCharCode(...new TextEncoder().encode(text));
    const { tlvs: _, ...texts } = said(
      value(0x02, bytes),
      aboutTls(value(0x22, bytes)),
      value(0xEA, `\x01${bytes}`),
    );
    assertEquals(texts, { authority: text, tlsClientName: text, awsEndpointId: text });
  }
  for (const bytes of ["\xff", "a\xc3", "\xed\xa0\x80"]) {
    const { tlvs, ...texts } = said(value(0x02, bytes), aboutTls(value(0x22, bytes)), value(0xEA, `\x01${bytes}`));
    assertEquals([texts, tlvs.get(0x02)], [{}, bytesOf(bytes)]);
  }
  for (const other of ["", "\x02vpce-1", "vpce-1"]) assertEquals(said(value(0xEA, other)).awsEndpointId, undefined);
});

Deno.test("A value that is cut off is refused, also within an extension about TLS", () => {
  for (const cut of ["\x22", "\x22\0", "\x22\0\x01", "\x22\0\x05four", "\x22\xff\xff"]) {
    assertEquals(refusal(bytesOf(cut)), "a value that is cut off");
    // Enough bytes follow, but they are of the next extension.
    assertEquals(refusal(aboutTls(bytesOf(cut)), value(0x04, "more")), "a value that is cut off");
    assertEquals(refusal(aboutTls(), aboutTls(bytesOf(cut))), "a value that is cut off");
  }
  for (const head of ["", "\x07\0\0\0"]) {
    assertEquals(refusal(value(0x20, head)), `a value about TLS of ${head.length} bytes`);
  }
  assertEquals(said(aboutTls()).tlvs.size, 1);
});

Deno.test("A header that has nothing more to say says nothing more, and one for the proxy itself is none", () => {
  const silent = { tlvs: new Map() };
  for (const line of ["PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY UNKNOWN\r\n"]) {
    assertEquals(parseProxyHeader(bytesOf(line))!.proxy, silent);
  }
  assertEquals(said(), silent);
  assertEquals(parseProxyHeader(binary(0x21, 0x00, value(0x02, "x")))!.proxy, silent);
  assertEquals(parseProxyHeader(binary(0x20, 0x00, value(0x02, "x")))!.proxy, undefined);
  assertEquals(parseProxyHeader(binary(0x20, 0x11, join(TCP4, value(0x02, "x"))))!.proxy, undefined);
});

Deno.test("Handlers can keep and change a value without an effect on another", () => {
  const { tlvs } = said(value(0x02, "example.org"), aboutTls(value(0x22, "client")));
  for (const [, bytes] of tlvs) assertEquals(bytes.buffer.byteLength, bytes.length);
  tlvs.get(0x20)!.fill(0);
  assertEquals(tlvs.get(0x22), bytesOf("client"));
});

type Given = { type: number; bytes: Uint8Array; within?: Given[] };

const anyGiven: fc.Arbitrary<Given> = fc.oneof(
  fc.record({
    type: fc.oneof(fc.constantFrom(0x01, 0x02, 0x04, 0x05, 0x22, 0xEA), fc.nat(255)).filter((type) =>
      type !== 0x03 && type !== 0x20
    ),
    bytes: fc.uint8Array({ maxLength: 20 }),
  }),
  fc.record({
    type: fc.constant(0x20),
    bytes: fc.constant(Uint8Array.of(7, 0, 0, 0, 0)),
    within: fc.array(
      fc.record({ type: fc.integer({ min: 0x21, max: 0x2f }), bytes: fc.uint8Array({ maxLength: 9 }) }),
      { maxLength: 4 },
    ),
  }),
);

/** The bytes of what is given, as a proxy would send them. */
function encode({ type, bytes, within = [] }: Given): Uint8Array {
  const text = (bytes: Uint8Array) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return value(type, text(bytes) + within.map((inner) => text(encode(inner))).join(""));
}

/** The first value of each type, in the order of the header; a second extension about TLS does not count. */
function firsts(all: Given[]): Map<number, Uint8Array> {
  const known = new Set<number>();
  const counted = all.filter(({ type }) => !known.has(type) && known.add(type));
  const flat = counted.flatMap((one) => [[one.type, encode(one).slice(3)] as const, ...inner(one)]);
  return new Map(flat.toReversed());
}

function inner({ within = [] }: Given) {
  return within.map((one) => [one.type, encode(one).slice(3)] as const);
}

test("Any extensions are told as they were sent, and the header is complete at its last byte, not before", async () => {
  const anyAddresses = fc.constantFrom(
    [0x11, TCP4] as const,
    [0x21, TCP6] as const,
    [
      0x31,
      join(address("/a", 108), address("/b", 108)),
    ] as const,
  );
  await check([anyAddresses, fc.array(anyGiven, { maxLength: 8 }), fc.option(fc.nat(8))], (addresses, all, sumAt) => {
    const [family, ends] = addresses;
    const parts = all.map(encode);
    const make = (sum: string) => {
      const sums = sumAt === null ? [] : [value(0x03, sum)];
      return binary(0x21, family, join(ends, ...parts.toSpliced(sumAt ?? 0, 0, ...sums)));
    };
    const header = withChecksum(make);
    for (let cut = 0; cut < header.length; cut++) {
      assertEquals(parseProxyHeader(header.subarray(0, cut)), undefined, `${cut}`);
      // A header that says it is this long: it ends between two extensions, or one of them is cut off.
      if (cut >= 16 + ends.length) assertShorter(header.slice(0, cut), [ends, ...parts], sumAt);
    }
    const tlvs = new Map(parseProxyHeader(join(bytesOf("?"), header, bytesOf("hi")).subarray(1))!.proxy!.tlvs);
    assertEquals(tlvs.delete(0x03), sumAt !== null);
    assertEquals<unknown>(tlvs, firsts(all));
  });
});

/** Checks a header whose length field says that it ends here. */
function assertShorter(header: Uint8Array, [ends, ...parts]: Uint8Array[], sumAt: number | null): void {
  new DataView(header.buffer).setUint16(14, header.length - 16);
  const bounds = [16 + ends.length];
  for (const part of parts) bounds.push(bounds.at(-1)! + part.length);
  // With a checksum in between, the header that ends early has a wrong one, or one that is cut off, or none yet.
  if (sumAt !== null && header.length > bounds[Math.min(sumAt, parts.length)]) {
    assertThrows(() => parseProxyHeader(header), ProxyHeaderError);
  } else if (bounds.includes(header.length)) assert(parseProxyHeader(header) !== undefined);
  else assertThrows(() => parseProxyHeader(header), ProxyHeaderError, "a value that is cut off");
}

const NAMED = binary(0x21, 0x11, join(TCP4, value(0x02, "example.org")));

test("A transport has what the header of its trusted proxy says, and no other transport has anything", async () => {
  const { below, clock, listener } = make();
  const proxyOf = async (peer: Deno.Addr, first: Uint8Array | string) => {
    const client = below.connect(peer);
    await client.write(first);
    const accepting = listener.accept();
    await settle(clock);
    const transport = await accepting;
    const { proxy } = transport;
    assertEquals(transport.proxy, proxy);
    transport.close();
    return proxy;
  };
  assertEquals(await proxyOf(PROXY, NAMED), {
    authority: "example.org",
    tlvs: new Map([[0x02, bytesOf("example.org")]]),
  });
  assertEquals(await proxyOf(PROXY, HEADER), { tlvs: new Map() });
  assertEquals(await proxyOf(PROXY, binary(0x20, 0, new Uint8Array(0))), undefined);
  assertEquals(await proxyOf(OTHER, "hello\n"), undefined);
  const damaged = below.connect(PROXY);
  await damaged.write(binary(0x21, 0x11, join(TCP4, value(0x02, "example.org").slice(0, -1))));
  const error = await listener.accept().then(() => undefined, (error) => error);
  assertEquals([error.reason, error.cause.message], [
    "proxy-header",
    "Malformed PROXY header: a value that is cut off",
  ]);
  listener.close();
});

test("Behind a proxy that proxies another proxy's own connections, the header of the inner one holds", async () => {
  const memory = new MemoryListener();
  const listener = proxyProtocol(proxyProtocol(memory, { from: "10.0.0.1" }), { from: "192.168.0.1" });
  const client = memory.connect(PROXY);
  await client.write(join(NAMED, binary(0x20, 0, new Uint8Array(0)), bytesOf("hi\n")));
  const transport = await listener.accept();
  assertEquals(transport.proxy?.authority, "example.org");
  transport.close();
  await listener.close();
});

test("A handler has what the header says", async () => {
  const memory = new MemoryListener();
  const listener = proxyProtocol(memory, { from: "10.0.0.1" });
  const options = { listener, clock: new FakeClock(), answerMisdirected: true };
  await using t = startServer(options, (_, { proxy }) => `${proxy?.authority} ${proxy?.tlvs.size}`);
  const said = async (peer: Deno.Addr, start: Uint8Array | string) => {
    const client = t.own(memory.connect(peer));
    await client.write(start);
    await client.write("hi\n");
    return await client.readLine();
  };
  assertEquals(await said(PROXY, NAMED), "example.org 1");
  assertEquals(await said(PROXY, HEADER), "undefined 0");
  assertEquals(await said(OTHER, ""), "undefined undefined");
});
