import { assertEquals, assertThrows } from "@std/assert";
import { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { readCertificate } from "../../../../ops/tls/certificates/der.ts";
import { isSignedByAny } from "../../../../ops/tls/peer/issuers.ts";
import { canonicalName, isFor } from "../../../../ops/tls/peer/names.ts";
import { ServerVerifier } from "../../../../ops/tls/peer/servers.ts";
import { Authority, makeIdentity, signWith } from "../../../kit/certificates.ts";

const ROOT = new Authority("root");
const MIDDLE = new Authority("middle", ROOT);
const LOWER = new Authority("lower", MIDDLE);

function parsed(...pems: string[]): X509Certificate[] {
  return pems.map((pem) => new X509Certificate(pem));
}

function signed(own: string, above: string[], authorities: string[]): boolean {
  return isSignedByAny(parsed(own)[0], parsed(...above), parsed(...authorities));
}

Deno.test("Signatures lead to an authority through others, in any order, and through nothing else", () => {
  const { cert } = makeIdentity("own", { by: LOWER });
  assertEquals(signed(cert, [LOWER.cert, MIDDLE.cert], [ROOT.cert]), true);
  assertEquals(signed(cert, [ROOT.cert, MIDDLE.cert, LOWER.cert], [ROOT.cert]), true);
  assertEquals(signed(cert, [MIDDLE.cert], [ROOT.cert]), false);
  assertEquals(signed(cert, [LOWER.cert], [LOWER.cert]), true);
  assertEquals(signed(cert, [LOWER.cert, MIDDLE.cert, ROOT.cert], []), false);
  assertEquals(signed(cert, [], [cert]), true);
});

Deno.test("Signatures by an expired authority, by a certificate that is none, or by the wrong key lead nowhere", () => {
  const old = new Authority("old", ROOT, [-9, -1]);
  assertEquals(signed(makeIdentity("own", { by: old }).cert, [old.cert], [ROOT.cert]), false);
  const leaf = makeIdentity("leaf", { by: ROOT });
  assertEquals(signed(makeIdentity("own", { by: signWith("leaf", leaf) }).cert, [leaf.cert], [ROOT.cert]), false);
  const impostor = new Authority("root");
  assertEquals(signed(makeIdentity("own", { by: impostor }).cert, [], [ROOT.cert]), false);
});

Deno.test("Authorities of the same name are told apart, and those that sign each other end the search", () => {
  const twin = new Authority("middle");
  const cross = new Authority("cross", MIDDLE);
  const { cert } = makeIdentity("own", { by: MIDDLE });
  assertEquals(signed(cert, [twin.cert, MIDDLE.cert], [ROOT.cert]), true);
  assertEquals(signed(cert, [twin.cert, cross.cert, twin.cert], [ROOT.cert]), false);
  assertEquals(signed(cert, Array(11).fill(MIDDLE.cert), [ROOT.cert]), false, "Too many");
});

Deno.test("A name with a comma, a line end or a sign of equality in it does not look like two", () => {
  const name = "client, O=Admins\nCN=root+x";
  const altNames = ["DNS:a.example, DNS:b.example", "IP Address:2001:db8:0:0:0:0:0:1"];
  const [{ raw }] = parsed(makeIdentity(name, { altNames }).cert);
  const fields = readCertificate(raw);
  assertEquals(fields.subject, "CN=client\\, O\\=Admins\\0aCN\\=root\\+x");
  assertEquals(fields.altNames, ["DNS:a.example, DNS:b.example", "IP Address:2001:db8::1"]);
  assertEquals([fields.version3, fields.usages], [true, undefined]);
});

Deno.test("The usages and the version of a certificate are read", () => {
  const fields = (...[options]: Parameters<typeof makeIdentity> extends [string, ...infer Rest] ? Rest : never) =>
    readCertificate(parsed(makeIdentity("x", options).cert)[0].raw);
  assertEquals(fields({ usage: "server" }).usages, ["1.3.6.1.5.5.7.3.1"]);
  assertEquals(fields({ usage: "client" }).usages, ["1.3.6.1.5.5.7.3.2"]);
  assertEquals(fields({ version1: true }).version3, false);
});

Deno.test("A certificate that is damaged or cut off at any byte is an error, or reads as another, and nothing worse", () => {
  const [{ raw }] = parsed(makeIdentity("own", { by: ROOT }).cert);
  for (let at = 0; at < raw.length; at++) {
    assertThrows(() => readCertificate(raw.subarray(0, at)), Error);
    for (const flipped of [raw[at] ^ 1, raw[at] ^ 0x80, 0xff]) {
      try {
        readCertificate(Uint8Array.from(raw).with(at, flipped));
      } catch (error) {
        assertEquals(error instanceof RangeError || error instanceof TypeError, true, `${error}`);
      }
    }
  }
});

Deno.test("A certificate with the same extension twice is refused: another program could read the other one", () => {
  const hex = new Uint8Array(parsed(makeIdentity("own", { by: ROOT, usage: "server" }).cert)[0].raw).toHex();
  // The object identifiers of the extended key usage and of the alternative names differ in their last byte.
  const twice = Uint8Array.fromHex(hex.replace("0603551d25", "0603551d11"));
  assertThrows(() => readCertificate(twice), RangeError, "The certificate has the extension 2.5.29.17 twice");
});

Deno.test("A server is verified in a full handshake, and refused in a resumed session", () => {
  const [own] = parsed(makeIdentity("server", { by: ROOT }).cert);
  const check = (resumed: boolean) => {
    const ssl = { verifyError: () => undefined, getPeerCertificateChain: () => ({ certificates: [own.raw] }) };
    const socket = { getPeerX509Certificate: () => own, isSessionReused: () => resumed, ssl };
    return new ServerVerifier("localhost", parsed(ROOT.cert)).check(socket as unknown as TLSSocket);
  };
  assertEquals(check(false).verified, true);
  assertThrows(() => check(true), Deno.errors.InvalidData, "there is no way to verify it");
});

Deno.test("A server is refused whose signatures are forged, although node:tls finds nothing wrong", () => {
  const check = (by: Authority) => {
    const certificates = parsed(makeIdentity("server", { by }).cert).map(({ raw }) => raw);
    const ssl = { verifyError: () => undefined, getPeerCertificateChain: () => ({ certificates }) };
    const socket = { isSessionReused: () => false, ssl };
    return new ServerVerifier("localhost", parsed(ROOT.cert)).check(socket as unknown as TLSSocket);
  };
  assertEquals(check(ROOT).verified, true);
  const problem = "none of the authorities in caCerts has signed it)";
  assertThrows(() => check(new Authority("root")), Deno.errors.InvalidData, problem);
});

Deno.test("Names are compared in one form, and what is no name is refused", () => {
  assertEquals(canonicalName("Example.ORG."), "example.org");
  assertEquals(canonicalName("2001:DB8:0::1"), "2001:db8::1");
  assertEquals(canonicalName("_xmpp.example.org"), "_xmpp.example.org");
  const wrong = ["", ".", "a..b", "-a.org", "a-.org", "1.2.3", "a.1", "*.org", "a b", "a\0", "é.org", "fe80::1%1"];
  for (const name of [...wrong, `${"a".repeat(64)}.org`, "a.".repeat(127) + "a"]) {
    assertEquals(canonicalName(name), undefined, name);
  }
});

Deno.test("A wildcard stands for one label of a name, and for nothing of an address", () => {
  const own = ["DNS:*.example.org", "DNS:*.0.0.1", "DNS:w*.example.net", "DNS:*", "email:example.com"];
  assertEquals(isFor(own, "a.example.org"), true);
  for (const name of ["example.org", "a.b.example.org", "127.0.0.1", "www.example.net", "example.com", "localhost"]) {
    assertEquals(isFor(own, name), false, name);
  }
});
