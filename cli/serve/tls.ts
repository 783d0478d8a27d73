/**
 * TLS for the command: reads the files that flags name, at the start and at SIGHUP.
 *
 * @module
 */

import { quote } from "../../internal/api/errors.ts";
import { datesProblem } from "../../ops/tls/certificates/certificate.ts";
import type { TlsCredentials } from "../../ops/tls/credentials.ts";
import { TlsCredentialsError } from "../../ops/tls/errors.ts";
import type { TlsServerCredentials } from "../../ops/tls/handle.ts";
import { reasonOf } from "../system/errors.ts";
import { cannotUse, readFiles } from "../system/files.ts";
import type { SERVE } from "../flags/flags.ts";
import type { Log } from "../log/log.ts";
import type { Given, Values } from "../line/parse.ts";
import { loadTls, type Wrap } from "./wrap.ts";

/** The values of the flags about TLS. */
export type TlsFlags =
  & Pick<Values<typeof SERVE.flags>, "tlsCert" | "tlsKey" | "tlsClientCa" | "tlsHandshakeTimeout">
  & Pick<Given<typeof SERVE.flags>, "nameOf">
  & { readonly onHandshake?: TlsCredentials["onHandshake"] };

/** The flag that names each file. */
const FLAGS = { cert: "tlsCert", key: "tlsKey", clientCa: "tlsClientCa" } as const;

/** TLS with the credentials in the files. */
export interface Security {
  /** Adds TLS to a listener. */
  readonly wrap: Wrap;
  /** What was read at the start. */
  readonly files: TlsCredentials;
  /** Reads the files again, and logs the outcome; never rejects. Called at SIGHUP. */
  readonly reload: () => Promise<void>;
}

/**
 * Loads the credentials, which all listeners share.
 *
 * @param flags The flags' values.
 * @param log The log, for messages about certificates.
 * @param passOn Gives what has been read again to others who need it.
 * @returns What wraps the listeners.
 * @throws {CommandError} (As a rejection.) If a file cannot be read or used.
 */
export async function loadSecurity(
  flags: TlsFlags,
  log: Log,
  passOn?: (files: TlsCredentials) => Promise<void>,
): Promise<Security> {
  const files = await readCredentials(flags);
  const { tlsHandshakeTimeout: handshakeTimeout, onHandshake } = flags;
  const { credentials, wrap } = await named(flags, loadTls({ ...files, handshakeTimeout, onHandshake }));
  tell(credentials, flags, log, "using");
  const reload = async () => {
    try {
      const read = await readCredentials(flags);
      await named(flags, credentials.reload(read));
      await passOn?.(read);
      tell(credentials, flags, log, "took new");
    } catch (error) {
      const text = `kept the old certificate: ${reasonOf(error)}`;
      log.write("error", "certificate-kept", () => text, () => ({ error: reasonOf(error) }));
    }
  };
  let last = Promise.resolve();
  return { wrap, files, reload: () => last = last.then(reload) };
}

/** Reads the files; `--tls-cert` is among the flags. */
async function readCredentials(flags: TlsFlags): Promise<TlsCredentials> {
  return await readFiles(FLAGS, flags) as TlsCredentials;
}

/** Waits for a promise, and names the flag and the file in its error: the library knows only texts. */
async function named<T>(flags: TlsFlags, promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    throw error instanceof TlsCredentialsError ? cannotUse(FLAGS, flags, error) : error;
  }
}

function tell({ certificate }: TlsServerCredentials, { tlsCert }: TlsFlags, log: Log, what: string): void {
  const { subject, validFrom, validTo } = certificate;
  const fields = () => ({ subject, validFrom: validFrom.toISOString(), validTo: validTo.toISOString() });
  const text = `${what} certificate ${subject}, valid until ${validTo.toISOString()}`;
  log.write("info", "certificate", () => text, fields);
  const problem = datesProblem(certificate);
  if (problem === undefined) return;
  const warning = `clients may refuse the certificate in ${quote(String(tlsCert))}: it ${problem}`;
  log.write("warn", "certificate-dates", () => warning, fields);
}
