import tls from "node:tls";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { testOnce as test } from "../../../kit/bounded.ts";
import { Authority, type Identity, makeIdentity, signWith } from "../../../kit/certificates.ts";
import { AUTHORITY, IDENTITY } from "../../../kit/tls.ts";
import { connectTo, type Options, type Seen } from "../../../kit/tls/node_server.ts";

const OTHERS = new Authority("another authority");
const MIDDLE = new Authority("intermediate authority", AUTHORITY);
/** An authority with the trusted one's name, but another key. */
const IMPOSTOR = new Authority(AUTHORITY.name);

/** Checks that a client refuses a server, and that the server has got nothing of what it should not have. */
async function refused(identity: tls.SecureContextOptions, options: Options, problem: RegExp) {
  const error = await assertRejects(() => connectTo(identity, options), Deno.errors.InvalidData);
  assertMatch(/^The server's certificate is not valid \((.*)\)$/s.exec(error.message)![1], problem);
  assertEquals((error as unknown as { seen: Seen }).seen, { data: "", secure: false });
}

const V6 = makeIdentity("server", { by: AUTHORITY, altNames: ["IP Address:2001:db8:0:0:0:0:0:1"] });
const WILDCARD = makeIdentity("server", { by: AUTHORITY, altNames: ["DNS:*.Example.org"] });
const CHAIN = (() => {
  const own = makeIdentity("server", { by: MIDDLE });
  return { ...own, cert: own.cert + MIDDLE.cert };
})();

const ACCEPTED: [what: string, identity: Identity, options: Options][] = [
  ["that is for the address", IDENTITY, { serverName: "127.0.0.1" }],
  ["that is for the IPv6 address, however it is written", V6, { serverName: "2001:DB8::1" }],
  ["that is for the name, with a dot at its end and in capitals", IDENTITY, { serverName: "LocalHost." }],
  ["with a wildcard for one label", WILDCARD, { serverName: "irc.example.org" }],
  ["of an intermediate authority", CHAIN, {}],
  ["of one of several authorities", IDENTITY, { caCerts: [OTHERS.cert, MIDDLE.cert + AUTHORITY.cert] }],
  ["that is for servers", makeIdentity("server", { by: AUTHORITY, usage: "server" }), {}],
];

for (const [what, identity, options] of ACCEPTED) {
  test(`connectTlsOver() accepts a certificate ${what}`, async () => {
    using client = await connectTo(identity, options);
    assertEquals(await client.readLine(), "hi");
  });
}

const SELF = makeIdentity("self");
const NO_CHAIN = makeIdentity("server", { by: MIDDLE });
/** A valid certificate of one server that signs another. */
const LEAF_AS_AUTHORITY = (() => {
  const leaf = makeIdentity("leaf", { by: AUTHORITY, altNames: ["DNS:example.org"] });
  const forged = makeIdentity("server", { by: signWith("leaf", leaf) });
  return { ...forged, cert: forged.cert + leaf.cert };
})();
const BELOW_EXPIRED = (() => {
  const middle = new Authority("old authority", AUTHORITY, [-30, -1]);
  const own = makeIdentity("server", { by: middle });
  return { ...own, cert: own.cert + middle.cert };
})();

const REFUSED: [what: string, identity: Identity, options: Options, problem: RegExp][] = [
  ["that is self-signed", SELF, {}, /^it is self-signed, and not one of the authorities in caCerts$/],
  [
    "of another authority",
    IDENTITY,
    { caCerts: OTHERS.cert },
    /^none of the authorities in caCerts has signed it, UNABLE/,
  ],
  ["that Deno's own authorities do not know", IDENTITY, { caCerts: undefined }, /^none of the authorities that Deno/],
  ["of an impostor", makeIdentity("server", { by: IMPOSTOR }), {}, /^none of the authorities in caCerts has signed it/],
  ["without the one above it", NO_CHAIN, {}, /^none of the authorities in caCerts has signed it/],
  ["that a server's certificate has signed", LEAF_AS_AUTHORITY, {}, /^none of the authorities in caCerts/],
  ["that has expired", makeIdentity("s", { by: AUTHORITY, days: [-9, -1] }), {}, /^it expired on 20/],
  ["that is not valid yet", makeIdentity("s", { by: AUTHORITY, days: [1, 9] }), {}, /^it is not valid before 20/],
  ["below an expired one", BELOW_EXPIRED, {}, /^a certificate above its own expired on 20/],
  ["for clients", makeIdentity("s", { by: AUTHORITY, usage: "client" }), {}, /^its extended key usage is not server/],
  ["of X.509 version 1", makeIdentity("localhost", { by: AUTHORITY, version1: true }), {}, /^it is of X.509 version 1/],
  [
    "of X.509 version 1 with the authority's name, which another has signed",
    makeIdentity("localhost", { by: IMPOSTOR, version1: true }),
    {},
    /^it is of X.509 version 1/,
  ],
  [
    "for another name",
    IDENTITY,
    { serverName: "example.org" },
    /^it is for DNS:localhost, IP Address:127.0.0.1, and not for example.org$/,
  ],
  ["for another address", IDENTITY, { serverName: "127.0.0.2" }, /and not for 127.0.0.2$/],
  ["with a wildcard, for two labels", WILDCARD, { serverName: "a.b.example.org" }, /and not for a.b.example.org$/],
  ["with a wildcard, for no label", WILDCARD, { serverName: "example.org" }, /and not for example.org$/],
  [
    "with a wildcard for a whole top-level domain",
    makeIdentity("s", { by: AUTHORITY, altNames: ["DNS:*.org"] }),
    { serverName: "example.org" },
    /and not for example.org$/,
  ],
  [
    "with an address as a host name",
    makeIdentity("s", { by: AUTHORITY, altNames: ["DNS:127.0.0.1"] }),
    { serverName: "127.0.0.1" },
    /and not for 127.0.0.1$/,
  ],
  [
    "with the name only in its subject",
    makeIdentity("localhost", { by: AUTHORITY, altNames: [] }),
    {},
    /^it is for no name, and not for localhost$/,
  ],
  [
    "with the name only before a NUL",
    makeIdentity("s", { by: AUTHORITY, altNames: ["DNS:localhost\0.example.org"] }),
    {},
    /^it is for DNS:localhost\\u0000.example.org, and not for localhost$/,
  ],
];

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  for (const [what, identity, options, problem] of REFUSED) {
    test(`connectTlsOver() refuses a certificate ${what}, and sends no byte, with ${version}`, async () => {
      await refused({ ...identity, minVersion: version, maxVersion: version }, options, problem);
    });
  }
}

test("connectTlsOver() refuses an intermediate certificate of version 1, which node:tls does not verify", async () => {
  // Its signature is an impostor's: only its issuer's name is that of the authority.
  const middle = new Authority("middle");
  const forged = { ...makeIdentity("server", { by: middle }) };
  const v1 = makeIdentity("middle", { by: IMPOSTOR, version1: true });
  await refused({ ...forged, cert: forged.cert + v1.cert }, {}, /^none of the authorities in caCerts has signed it$/);
  // The second has no declaration yet.
  const { getCACertificates, setDefaultCACertificates } = tls as unknown as {
    getCACertificates(type: "default"): string[];
    setDefaultCACertificates(certificates: string[]): void;
  };
  const before = getCACertificates("default");
  setDefaultCACertificates([AUTHORITY.cert]);
  try {
    const problem = /^none of the authorities that Deno trusts has signed it$/;
    await refused({ ...forged, cert: forged.cert + v1.cert }, { caCerts: undefined }, problem);
    // The default is in use.
    using client = await connectTo(IDENTITY, { caCerts: undefined });
    assertEquals(await client.readLine(), "hi");
  } finally {
    setDefaultCACertificates(before);
  }
});

for (const version of ["TLSv1.2", "TLSv1.3"]) {
  test(`connectTlsOver() trusts Deno's own authorities, and resumes no session with them, with ${version}`, async () => {
    const identity = { ...IDENTITY, minVersion: version, maxVersion: version };
    const program = `
      import { TLSSocket } from "node:tls";
      import { TestClient } from "@x/shouty/testing";
      import { connectTlsOver } from "./ops/tls/client.ts";
      import { pipe, streamOf } from "./tests/kit/tls.ts";
      for (let i = 0; i < 3; i++) {
        const [serverEnd, clientEnd] = pipe();
        const server = new TLSSocket(streamOf(new TestClient(serverEnd)), { isServer: true, ...${
      JSON.stringify(identity)
    } });
        server.write("hi\\n");
        const client = new TestClient(await connectTlsOver(clientEnd, { serverName: "localhost" }));
        console.log(await client.readLine(), server.isSessionReused());
      }
      Deno.exit();`;
    const file = await Deno.makeTempFile();
    await Deno.writeTextFile(file, AUTHORITY.cert);
    const command = new Deno.Command(Deno.execPath(), { args: ["eval", "--no-check", "--cert", file, program] });
    const { stdout, stderr } = await command.output();
    await Deno.remove(file);
    const output = new TextDecoder().decode(stdout);
    assertEquals(output, "hi false\n".repeat(3), new TextDecoder().decode(stderr));
  });
}
