/**
 * Certificates for tests, made when they are needed.
 *
 * @module
 */

import { generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";

/** A certificate and its key, in PEM. */
export interface Identity {
  cert: string;
  key: string;
}

/** The properties of a certificate to be made. */
export interface Request {
  /** The authority that signs it; without one, it is self-signed. */
  by?: Signer;
  /** The period in which it is valid, as days from now. */
  days?: [from: number, to: number];
  /** The algorithm of its key. */
  curve?: string;
  /** Whether it is of X.509 version 1, which has no extensions. */
  version1?: boolean;
  /** Its only permitted use; any use by default. */
  usage?: "server" | "client" | undefined;
  /** Its alternative names, such as `DNS:example.org` or `IP Address:192.0.2.1`; by default those of the loopback. */
  altNames?: readonly string[];
}

const DAY_MS = 24 * 60 * 60 * 1000;
const ECDSA_WITH_SHA256 = sequence(oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02));

/** Signs certificates. */
export class Authority {
  readonly name: string;
  readonly #keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  /** Its own certificate, in PEM. */
  readonly cert: string;

  /**
   * @param name Its name.
   * @param by The authority that signs it; by default, it signs itself.
   * @param days The period in which it is valid, as days from now.
   */
  constructor(name: string, by?: Authority, days: [from: number, to: number] = [-1, 30]) {
    this.name = name;
    this.cert = pem(certify(name, this.#keys.publicKey, by ?? this, days, [BASIC_CONSTRAINTS]));
  }

  sign(bytes: Uint8Array): Uint8Array {
    return sign("sha256", bytes, this.#keys.privateKey);
  }
}

/** Makes a certificate for `localhost` and 127.0.0.1, and its key. */
export function makeIdentity(name: string, options: Request = {}): Identity {
  const { by, days = [-1, 30], curve = "P-256", version1 = false, usage, altNames = LOOPBACK } = options;
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: curve });
  const signer = by ?? { name, sign: (bytes: Uint8Array) => sign("sha256", bytes, privateKey) };
  const extensions = [alternativeNames(altNames), ...(usage === undefined ? [] : [EXTENDED_KEY_USAGES[usage]])];
  const cert = pem(certify(name, publicKey, signer, days, version1 ? undefined : extensions));
  return { cert, key: privateKey.export({ type: "pkcs8", format: "pem" }) as string };
}

/** What signs certificates. */
export type Signer = Pick<Authority, "name" | "sign">;

/** Makes a signer of an identity, although its certificate is not that of an authority. */
export function signWith(name: string, { key }: Identity): Signer {
  return { name, sign: (bytes) => sign("sha256", bytes, key) };
}

/** Makes a certificate in DER; without extensions it is of version 1. */
function certify(name: string, key: KeyObject, by: Signer, days: [number, number], extensions?: Uint8Array[]) {
  const [notBefore, notAfter] = days.map((day) => time(new Date(Date.now() + day * DAY_MS)));
  const body = sequence(
    ...(extensions === undefined ? [] : [tagged(0xa0, tagged(0x02, Uint8Array.of(2)))]),
    tagged(0x02, Uint8Array.of(1, ...randomBytes(15))),
    ECDSA_WITH_SHA256,
    distinguishedName(by.name),
    sequence(notBefore, notAfter),
    distinguishedName(name),
    key.export({ type: "spki", format: "der" }) as Uint8Array,
    ...(extensions === undefined ? [] : [tagged(0xa3, sequence(...extensions))]),
  );
  return sequence(body, ECDSA_WITH_SHA256, tagged(0x03, Uint8Array.of(0, ...by.sign(body))));
}

/** The critical extension that marks an authority. */
const BASIC_CONSTRAINTS = sequence(
  oid(0x55, 0x1d, 0x13),
  tagged(0x01, Uint8Array.of(0xff)),
  tagged(0x04, sequence(tagged(0x01, Uint8Array.of(0xff)))),
);

const LOOPBACK = ["DNS:localhost", "IP Address:127.0.0.1"];

/** The extension with the alternative names. */
function alternativeNames(names: readonly string[]): Uint8Array {
  const general = names.map((name) => {
    const address = /^IP Address:(.*)/.exec(name)?.[1];
    if (address === undefined) return tagged(0x82, text(name.replace("DNS:", "")));
    const v6 = () => address.split(":").flatMap((group) => [parseInt(group, 16) >> 8, parseInt(group, 16) & 0xff]);
    return tagged(0x87, Uint8Array.from(address.includes(":") ? v6() : address.split(".").map(Number)));
  });
  return sequence(oid(0x55, 0x1d, 0x11), tagged(0x04, sequence(...general)));
}

/** id-kp-serverAuth and id-kp-clientAuth. */
const EXTENDED_KEY_USAGES = { server: extendedKeyUsage(1), client: extendedKeyUsage(2) };

function extendedKeyUsage(purpose: number): Uint8Array {
  const usage = oid(0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, purpose);
  return sequence(oid(0x55, 0x1d, 0x25), tagged(0x04, sequence(usage)));
}

function distinguishedName(name: string): Uint8Array {
  return sequence(tagged(0x31, sequence(oid(0x55, 0x04, 0x03), tagged(0x0c, text(name)))));
}

/** A GeneralizedTime. */
function time(date: Date): Uint8Array {
  return tagged(0x18, text(date.toISOString().replaceAll(/[-:T]|\.\d+/g, "")));
}

function oid(...bytes: number[]): Uint8Array {
  return tagged(0x06, Uint8Array.from(bytes));
}

function sequence(...parts: Uint8Array[]): Uint8Array {
  return tagged(0x30, ...parts);
}

/** Encodes a value in DER: a tag, a length, and the content. */
function tagged(tag: number, ...parts: Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Uint8Array.of(tag, ...head, ...parts.flatMap((part) => [...part]));
}

function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

function pem(der: Uint8Array): string {
  const lines = der.toBase64().match(/.{1,64}/g)!.join("\n");
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
}
