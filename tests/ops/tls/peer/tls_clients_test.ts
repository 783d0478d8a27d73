import { assertEquals, assertThrows } from "@std/assert";
import { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { ClientVerifier } from "../../../../ops/tls/peer/clients.ts";
import { Authority, makeIdentity } from "../../../kit/certificates.ts";

const AUTHORITY = new Authority("client authority");
const DAY_MS = 24 * 60 * 60 * 1000;

/** A certificate that is valid for some days from now. */
function certificate(days: number): X509Certificate {
  return new X509Certificate(makeIdentity("client", { by: AUTHORITY, days: [-1, days] }).cert);
}

/** A `TLSSocket` as the verifier sees it, after a full handshake with a valid certificate, or after a resumption. */
function client(own: X509Certificate, reused: boolean, above: X509Certificate[] = [], fingerprint256?: string) {
  const named = fingerprint256 === undefined
    ? own
    : { raw: own.raw, subject: own.subject, validFrom: own.validFrom, validTo: own.validTo, fingerprint256 };
  return {
    isSessionReused: () => reused,
    getPeerX509Certificate: () => named,
    ssl: {
      verifyError: () => "",
      getPeerCertificateChain: () => ({ certificates: [own, ...above].map(({ raw }) => raw) }),
    },
  } as unknown as TLSSocket;
}

/** Calls a function as if it were some days later. */
function later(days: number, what: () => void): void {
  const { now } = Date;
  Date.now = () => now() + days * DAY_MS;
  try {
    what();
  } finally {
    Date.now = now;
  }
}

function newVerifier(): ClientVerifier {
  return new ClientVerifier([new X509Certificate(AUTHORITY.cert)]);
}

Deno.test("A session is resumed only as long as its certificate holds", () => {
  const verifier = newVerifier();
  const own = certificate(10);
  verifier.check(client(own, false));
  later(9, () => verifier.check(client(own, true)));
  later(11, () => assertThrows(() => verifier.check(client(own, true)), Error, "it expired on"));
});

Deno.test("A session is resumed only while the certificates above its own are valid, except those that never were", () => {
  const verifier = newVerifier();
  const own = certificate(10);
  verifier.check(client(own, false, [certificate(5), certificate(-0.5)]));
  later(4, () => verifier.check(client(own, true)));
  later(
    6,
    () => assertThrows(() => verifier.check(client(own, true)), Error, "a certificate above its own has expired"),
  );
});

Deno.test("Of 10000 certificates that were verified the latest are remembered, and no more", () => {
  const verifier = newVerifier();
  const own = certificate(10);
  const resumes = (name: string) => {
    try {
      verifier.check(client(own, true, [], name));
      return true;
    } catch {
      return false;
    }
  };
  verifier.check(client(own, false, [], "first"));
  verifier.check(client(own, false, [], "second"));
  for (let i = 0; i < 9_998; i++) verifier.check(client(own, false, [], `${i}`));
  assertEquals([resumes("first"), resumes("second")], [true, true]);
  verifier.check(client(own, false, [], "first"));
  verifier.check(client(own, false, [], "last"));
  assertEquals([resumes("first"), resumes("second"), resumes("last")], [true, false, true]);
});
