/**
 * The command's client, and files with certificates for it and for servers.
 *
 * @module
 */

import { Authority, makeIdentity } from "../certificates.ts";
import { type Outcome, runCommand } from "../command.ts";
import { withFiles } from "../foreign/openssl.ts";
import { AUTHORITY, IDENTITY } from "../tls.ts";

/** Files for flags, and where each is; disposing of them removes them. */
type Files = ReturnType<typeof withFiles>;

const CLIENT = makeIdentity("client", { by: AUTHORITY });

/** A folder with the files that flags name. */
export function withPem(): Files {
  const other = new Authority("another authority").cert;
  const [cert, key] = [CLIENT.cert, CLIENT.key];
  return withFiles({ "ca.pem": AUTHORITY.cert, "other.pem": other, "cert.pem": cert, "key.pem": key });
}

/** A folder with the files that a server reads. */
export function withServerPem(): Files {
  return withFiles({ "cert.pem": IDENTITY.cert, "key.pem": IDENTITY.key, "ca.pem": AUTHORITY.cert });
}

/** Runs the client with permission to read files. */
export function connect(address: string, input: string, ...flags: string[]): Promise<Outcome> {
  return runCommand(["connect", address, ...flags], { input, permissions: ["--allow-net", "--allow-read"] });
}
