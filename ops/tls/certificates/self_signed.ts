/**
 * A certificate and its key for a self-test that needs any.
 *
 * @module
 */

import { generateKeyPairSync, sign } from "node:crypto";

/** DER tags. */
const INTEGER = 0x02, BIT_STRING = 0x03, OID = 0x06, UTF8 = 0x0c, UTC_TIME = 0x17, SEQUENCE = 0x30, SET = 0x31;
const VERSION = 0xa0;

/** The identifiers of `ecdsa-with-SHA256` and of a common name. */
const ECDSA_WITH_SHA256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const COMMON_NAME = [0x55, 4, 3];

/** Makes a key, and a certificate that is signed with it; both in PEM. Nothing trusts it, and it is used in memory only. */
export function makeSelfSigned(): { cert: string; key: string } {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const algorithm = der(SEQUENCE, der(OID, ECDSA_WITH_SHA256));
  const name = der(SEQUENCE, der(SET, der(SEQUENCE, [...der(OID, COMMON_NAME), ...der(UTF8, text("self-test"))])));
  const validity = der(SEQUENCE, [...der(UTC_TIME, text("700101000000Z")), ...der(UTC_TIME, text("491231235959Z"))]);
  const head = [...der(VERSION, der(INTEGER, [2])), ...der(INTEGER, [1]), ...algorithm, ...name, ...validity, ...name];
  const signed = der(SEQUENCE, [...head, ...publicKey.export({ type: "spki", format: "der" })]);
  const signature = sign("sha256", Uint8Array.from(signed), privateKey);
  const certificate = der(SEQUENCE, [...signed, ...algorithm, ...der(BIT_STRING, [0, ...signature])]);
  const base64 = btoa(String.fromCharCode(...certificate)).replace(/.{64}/g, "$&\n");
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
  };
}

/** Encodes a value of less than 64 KiB. */
function der(tag: number, content: number[]): number[] {
  const { length } = content;
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255];
  return [tag, ...size, ...content];
}

function text(ascii: string): number[] {
  return [...new TextEncoder().encode(ascii)];
}
