import { assert, assertEquals, assertThrows } from "@std/assert";
import { parseCidrs, parsePeers } from "../../internal/admission/cidr.ts";
import * as fc from "../kit/framing/fast_check.ts";

/** Texts are lists in short, as on the command line. */
const partsOf = (list: string | string[]) => typeof list === "string" ? list.split(",") : list;

function matches(list: string | string[], hostname: string): boolean {
  return parseCidrs("allow", partsOf(list))({ transport: "tcp", hostname, port: 7 });
}

Deno.test("A list of networks matches exactly the addresses in them", () => {
  const list = "127.0.0.1, 10.0.0.0/8,2001:db8::/32";
  for (const inside of ["127.0.0.1", "10.0.0.0", "10.255.255.255", "2001:db8::1"]) {
    assert(matches(list, inside), inside);
  }
  for (const outside of ["127.0.0.2", "9.255.255.255", "11.0.0.0", "2001:db9::1", "::1", "::"]) {
    assert(!matches(list, outside), outside);
  }
  assert(matches(list.split(","), "10.1.2.3"));
  assert(!matches([], "127.0.0.1"));
});

Deno.test("An IPv4 address that an IPv6 address maps counts as IPv4, in lists and of peers", () => {
  assert(matches("10.0.0.0/8", "::ffff:10.1.2.3"));
  assert(matches("::ffff:10.0.0.0/104", "10.1.2.3"));
  assert(matches("::ffff:10.0.0.1", "::ffff:10.0.0.1"));
  assert(!matches("::/0", "::ffff:10.1.2.3"), "IPv6 networks hold no IPv4");
  assert(!matches("0.0.0.0/0", "::1"));
});

Deno.test("An address with a zone is compared without its zone", () => {
  for (const list of ["fe80::/10", "fe80::1", "::/0"]) {
    for (const zone of ["eth0", "2", "br-1.7"]) assert(matches(list, `fe80::1%${zone}`), `${list} fe80::1%${zone}`);
  }
  assert(!matches("fe80::2,2001:db8::/32", "fe80::1%eth0"));
  assert(matches("10.0.0.0/8", "::ffff:10.1.2.3%eth0"));
  assert(!matches("fe80::/10", "::ffff:10.1.2.3%eth0"));
});

Deno.test("A peer on a Unix socket is in no network", () => {
  assert(!parseCidrs("allow", ["0.0.0.0/0", "::/0"])({ transport: "unix", path: "/run/x.sock" }));
});

Deno.test("parseCidrs() names a wrong part, and what is expected", () => {
  const address = "expected an IPv4 or IPv6 address, or a network such as 10.0.0.0/8 or fd00::/8";
  const prefix = (most: number) => `expected a whole number from 0 to ${most} after the slash`;
  const wrong: [string | string[], string, string][] = [
    ["", "", address],
    ["10.0.0.1,", "", address],
    ["localhost", "localhost", address],
    ["10.0.0", "10.0.0", address],
    ["010.0.0.1", "010.0.0.1", address],
    ["10.0.0.256", "10.0.0.256", address],
    ["10.0.0.1:80", "10.0.0.1:80", address],
    ["::1,[::1]", "[::1]", address],
    ["fe80::1%eth0", "fe80::1%eth0", address],
    ["10.0.0.0/8/8", "10.0.0.0/8/8", address],
    [["10.0.0.1", "1::2::3"], "1::2::3", address],
    ["10.0.0.0/", "10.0.0.0/", prefix(32)],
    ["10.0.0.0/33", "10.0.0.0/33", prefix(32)],
    ["10.0.0.0/08", "10.0.0.0/08", prefix(32)],
    ["10.0.0.0/-1", "10.0.0.0/-1", prefix(32)],
    ["::/129", "::/129", prefix(128)],
  ];
  for (const [list, part, expected] of wrong) {
    assertThrows(() => parseCidrs("allow", partsOf(list)), RangeError, `Cannot use allow "${part}": ${expected}`);
  }
  // deno-lint-ignore no-explicit-any
  for (const list of [undefined, null, 10, [10], "10.0.0.1"] as any[]) {
    assertThrows(() => parseCidrs("deny", list), TypeError, "Cannot use deny ");
  }
});

/** An address as numbers: the width of its family, its bits, and a mask of the bits to flip. */
const PAIRS = fc.constantFrom(32, 128).chain((width) =>
  fc.record({
    width: fc.constant(width),
    prefix: fc.integer({ min: 0, max: width }),
    network: fc.bigInt({ min: 0n, max: 2n ** BigInt(width) - 1n }),
    flipped: fc.integer({ min: 0, max: width }),
  })
);

function write(bits: bigint, width: number): string {
  const size = width === 32 ? 8n : 16n;
  const parts = Array.from({ length: width === 32 ? 4 : 8 }, (_, i) => bits >> size * BigInt(i) & (1n << size) - 1n);
  return parts.reverse().map((part) => part.toString(width === 32 ? 10 : 16)).join(width === 32 ? "." : ":");
}

Deno.test("An address is in a network exactly if it differs only after the prefix", () => {
  fc.assert(fc.property(PAIRS, ({ width, prefix, network, flipped }) => {
    // 0 flips no bit, 1 flips the lowest bit.
    const probe = flipped === 0 ? network : network ^ 1n << BigInt(flipped - 1);
    const inside = flipped <= width - prefix;
    assertEquals(matches(`${write(network, width)}/${prefix}`, write(probe, width)), inside);
  }));
});

Deno.test("Only the word unix stands for peers on Unix sockets, and for no other peers", () => {
  const unix = { transport: "unix", path: "/run/x.sock" } as const;
  const tcp = { transport: "tcp", hostname: "10.0.0.1", port: 1 } as const;
  const answers = (list: string | string[]) => [unix, tcp].map(parsePeers("from", list));
  assertEquals(answers("unix"), [true, false]);
  assertEquals(answers(["10.0.0.0/8", " unix "]), [true, true]);
  assertEquals(answers("0.0.0.0/0,::/0"), [false, true]);
  for (const wrong of ["Unix", "unix:", "", "unix,"]) assertThrows(() => parsePeers("from", wrong), RangeError);
  assertThrows(() => parsePeers("from", 5 as never), TypeError, "Cannot use from 5");
  assertThrows(() => parsePeers("from", ["unix", 5] as never), TypeError, "Cannot use from 5");
});
