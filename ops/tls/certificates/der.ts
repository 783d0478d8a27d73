/**
 * Reads the fields of a certificate by which its owner is recognised, from its DER encoding.
 *
 * `X509Certificate` of `node:crypto` has them as one text, in which a name with a comma in it looks like two names.
 *
 * @module
 */

/** The fields of a certificate that identify its owner, and what it may be used for. */
export interface CertificateFields {
  /** Whether it is of X.509 version 3. */
  readonly version3: boolean;
  /** The name that it was issued to, by RFC 4514 but with the first part first: `CN=client, O=Example`. */
  readonly subject: string;
  /** The subject alternative names, each with its type: `DNS:example.org`, `IP Address:192.0.2.1`. */
  readonly altNames: readonly string[];
  /** The object identifiers of its extended key usages; undefined if it may be used for anything. */
  readonly usages: readonly string[] | undefined;
}

/** Object identifiers of extended key usages. */
export const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
export const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";

const SUBJECT_ALTERNATIVE_NAMES = "2.5.29.17";
const EXTENDED_KEY_USAGE = "2.5.29.37";

/** Tags of DER. */
const INTEGER = 0x02;
const BMP_STRING = 0x1e;
const UTF8_STRING = 0x0c;
const VERSION = 0xa0;
const EXTENSIONS = 0xa3;

interface Field {
  readonly tag: number;
  readonly content: Uint8Array;
}

/**
 * Reads those fields.
 *
 * @param der The certificate in DER.
 * @returns The fields.
 * @throws {RangeError} If the encoding is damaged.
 */
export function readCertificate(der: Uint8Array): CertificateFields {
  const [body] = fieldsOf(only(der));
  const fields = fieldsOf(body);
  const version = fields[0].tag === VERSION ? only(fields.shift()!.content) : undefined;
  const extensions = extensionsOf(fields.find(({ tag }) => tag === EXTENSIONS));
  const usages = extensions.get(EXTENDED_KEY_USAGE);
  const names = extensions.get(SUBJECT_ALTERNATIVE_NAMES);
  return {
    version3: version?.tag === INTEGER && version.content.length === 1 && version.content[0] === 2,
    // Behind the serial number, the algorithm, the issuer and the dates.
    subject: fieldsOf(fields[4]).map(relativeName).join(", "),
    altNames: names === undefined ? [] : fieldsOf(only(names)).map(altName),
    usages: usages && fieldsOf(only(usages)).map(({ content }) => oidOf(content)),
  };
}

/**
 * Reads what is signed of a certificate, and the signature.
 *
 * @param der The certificate in DER.
 * @returns The bytes that are signed, and the signature's bytes.
 */
export function signedPartOf(der: Uint8Array): { body: Uint8Array; signature: Uint8Array } {
  const certificate = only(der).content;
  const [body, , signature] = read(certificate);
  const end = body.content.byteOffset - certificate.byteOffset + body.content.length;
  // A bit string begins with the number of bits that its last byte does not use: none.
  return { body: certificate.subarray(0, end), signature: signature.content.subarray(1) };
}

function read(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  for (let at = 0; at < bytes.length;) {
    const tag = bytes[at];
    let length = bytes[at + 1];
    at += 2;
    if (length >= 0x80) {
      const size = length & 0x7f;
      if (size === 0 || size > 3) throw new RangeError("A length in the certificate is out of range");
      length = 0;
      for (let i = 0; i < size; i++) length = length << 8 | bytes[at++];
    }
    // Also if `length` is undefined, because the bytes have ended.
    if (!(at + length <= bytes.length)) throw new RangeError("The certificate is cut off");
    fields.push({ tag, content: bytes.subarray(at, at += length) });
  }
  return fields;
}

function fieldsOf(field: Field | undefined): Field[] {
  if (field === undefined) throw new RangeError("A field of the certificate is missing");
  return read(field.content);
}

function only(bytes: Uint8Array): Field {
  const fields = read(bytes);
  if (fields.length !== 1) throw new RangeError("A field of the certificate is not alone");
  return fields[0];
}

/** The contents of the extensions, by object identifier. */
function extensionsOf(field: Field | undefined): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>();
  if (field === undefined) return found;
  for (const extension of fieldsOf(only(field.content))) {
    const parts = fieldsOf(extension);
    const id = oidOf(parts[0].content);
    if (found.has(id)) throw new RangeError(`The certificate has the extension ${id} twice`);
    found.set(id, parts.at(-1)!.content);
  }
  return found;
}

function oidOf(bytes: Uint8Array): string {
  const numbers: number[] = [];
  let value = 0;
  for (const byte of bytes) {
    value = value * 128 + (byte & 0x7f);
    if (byte >= 0x80) continue;
    if (numbers.length === 0) {
      numbers.push(Math.min(Math.floor(value / 40), 2), value - 40 * Math.min(Math.floor(value / 40), 2));
    } else numbers.push(value);
    value = 0;
  }
  return numbers.join(".");
}

const ATTRIBUTES: Record<string, string> = {
  "2.5.4.3": "CN",
  "2.5.4.4": "SN",
  "2.5.4.5": "serialNumber",
  "2.5.4.6": "C",
  "2.5.4.7": "L",
  "2.5.4.8": "ST",
  "2.5.4.10": "O",
  "2.5.4.11": "OU",
  "2.5.4.42": "GN",
  "0.9.2342.19200300.100.1.1": "UID",
  "0.9.2342.19200300.100.1.25": "DC",
  "1.2.840.113549.1.9.1": "emailAddress",
};

/** One part of a name, such as `CN=client`; of several attributes in one part, all are named, joined by `+`. */
function relativeName(set: Field): string {
  return fieldsOf(set).map((attribute) => {
    const [type, value] = fieldsOf(attribute);
    const id = oidOf(type.content);
    return `${ATTRIBUTES[id] ?? id}=${escapeValue(textOf(value))}`;
  }).join("+");
}

/** Escapes by RFC 4514 what would otherwise look like the start of another attribute, and control characters. */
function escapeValue(text: string): string {
  // deno-lint-ignore no-control-regex -- a name may contain any character
  return text.replaceAll(/[,+"\\<>;=]|^[ #]| $/g, "\\$&").replaceAll(/[\x00-\x1f\x7f]/g, (character) => {
    return `\\${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}

function textOf({ tag, content }: Field): string {
  const encoding = tag === UTF8_STRING ? "utf-8" : tag === BMP_STRING ? "utf-16be" : "latin1";
  return new TextDecoder(encoding, { ignoreBOM: true }).decode(content);
}

/** Formats a GeneralName of RFC 5280, with the labels that OpenSSL uses. */
function altName({ tag, content }: Field): string {
  const text = () => textOf({ tag, content });
  switch (tag) {
    case 0x81:
      return `email:${text()}`;
    case 0x82:
      return `DNS:${text()}`;
    case 0xa4:
      return `DirName:${fieldsOf(only(content)).map(relativeName).join(", ")}`;
    case 0x86:
      return `URI:${text()}`;
    case 0x87:
      return `IP Address:${addressOf(content)}`;
    case 0x88:
      return `Registered ID:${oidOf(content)}`;
    default:
      return "othername:<unsupported>";
  }
}

function addressOf(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  if (bytes.length !== 16) return bytes.toHex();
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[2 * i] << 8 | bytes[2 * i + 1]).toString(16));
  return canonicalAddress(groups.join(":"));
}

/** Writes an IPv6 address in its shortest form, with which others can be compared. */
export function canonicalAddress(address: string): string {
  return address.includes(":") ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;
}
