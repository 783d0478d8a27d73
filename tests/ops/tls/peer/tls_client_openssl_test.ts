import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { type ClientTlsOptions, connectTlsOver } from "../../../../ops/tls/client.ts";
import { Authority, makeIdentity } from "../../../kit/certificates.ts";
import { opensslServer, runOpenssl, test, withFiles } from "../../../kit/foreign/openssl.ts";
import { AUTHORITY, IDENTITY } from "../../../kit/tls.ts";

const CLIENTS = new Authority("client authority");
const VERSIONS = [["-tls1_2", "TLSv1.2"], ["-tls1_3", "TLSv1.3"]] as const;

const FILES = { "cert.pem": IDENTITY.cert, "key.pem": IDENTITY.key, "clients.pem": CLIENTS.cert };

/** Starts a server with the usual certificate. */
async function startServer(...args: string[]) {
  const file = await withFiles(FILES);
  const server = await opensslServer(
    "-cert",
    file("cert.pem"),
    "-key",
    file("key.pem"),
    ...args.map((arg) => {
      return arg.startsWith("@") ? file(arg.slice(1)) : arg;
    }),
  );
  return {
    server,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await file[Symbol.asyncDispose]();
    },
  };
}

/** Connects a client, and closes the TCP connection if that fails. */
async function connectTo({ port }: { port: number }, options: Partial<ClientTlsOptions> = {}) {
  const conn = await Deno.connect({ port });
  try {
    const all = { serverName: "localhost", caCerts: AUTHORITY.cert, ...options };
    const transport = await connectTlsOver(conn, all);
    return Object.assign(new TestClient(transport), { transport });
  } catch (error) {
    conn.close();
    throw error;
  }
}

for (const [version, name] of VERSIONS) {
  test(`A client talks with OpenSSL's server, and ends properly, with ${name}`, async () => {
    await using t = await startServer(version, "-rev", "-alpn", "pop3,imap");
    using client = await connectTo(t.server, { alpnProtocols: ["imap", "pop3"] });
    assertEquals([client.transport.tls.version, client.transport.tls.alpn], [name, "pop3"]);
    await client.write("hello\n");
    assertEquals(await client.readLine(), "olleh");
    const line = "stressed ".repeat(1000);
    await client.write(`${line}\n`.repeat(20));
    for (let i = 0; i < 20; i++) assertEquals(await client.readLine(), [...line].reverse().join(""));
    await client.closeWrite();
    assertEquals(await client.read(), null);
  });

  test(`A client tells a proper end of OpenSSL's server from one that cuts the connection, with ${name}`, async () => {
    for (const proper of [true, false]) {
      await using t = await startServer(version, "-rev");
      using client = await connectTo(t.server);
      await client.write("hello\n");
      assertEquals(await client.readLine(), "olleh");
      // OpenSSL's server reverses lines until it gets this one.
      if (proper) await client.write("CLOSE\n");
      else t.server.signal("SIGKILL");
      const reading = client.readAll();
      if (proper) assertEquals(await reading, "");
      else await assertRejects(() => reading, Error);
    }
  });

  test(`A client shows OpenSSL's server its certificate, with ${name}`, async () => {
    await using t = await startServer(version, "-Verify", "2", "-verify_return_error", "-CAfile", "@clients.pem");
    using client = await connectTo(t.server, makeIdentity("me", { by: CLIENTS }));
    await client.write("hello\n");
    await t.server.stdoutMatch(/hello/);
    assertMatch(t.server.stdout, /subject=CN ?= ?me/);
  });

  test(`A client without the certificate that OpenSSL's server asks for learns of it, with ${name}`, async () => {
    await using t = await startServer(version, "-Verify", "2", "-verify_return_error", "-CAfile", "@clients.pem");
    for (const identity of [{}, makeIdentity("stranger")]) {
      const error = await assertRejects(async () => {
        using client = await connectTo(t.server, identity);
        await client.readAll();
      }, Error);
      assertMatch(error.message, /fatal alert: (HandshakeFailure|CertificateRequired|UnknownCA|BadCertificate)/);
    }
  });

  test(`A client refuses OpenSSL's server for another name before it sends anything, with ${name}`, async () => {
    await using t = await startServer(version);
    await assertRejects(
      () => connectTo(t.server, { serverName: "example.org" }),
      Deno.errors.InvalidData,
      "and not for example.org",
    );
    // It still serves.
    using client = await connectTo(t.server);
    await client.write("hello\n");
    await t.server.stdoutMatch(/hello/);
  });
}

test("A client does not negotiate anew when OpenSSL's server asks for it, and goes on or fails cleanly", async () => {
  await using t = await startServer("-tls1_2");
  using client = await connectTo(t.server);
  await client.write("hello\n");
  await t.server.stdoutMatch(/hello/);
  await t.server.type("R\n");
  // The server would drop what it reads together with the command. It has read that when it shows a later line.
  await client.write("there?\n");
  await t.server.stdoutMatch(/there\?/);
  await t.server.type("still here\n");
  const outcome = await client.readLine().catch((error) => error);
  assert(outcome === "still here" || outcome instanceof Error, `${outcome}`);
});

test("A client refuses OpenSSL's server below TLS 1.2", async () => {
  await using t = await startServer("-tls1_1", "-cipher", "ALL:@SECLEVEL=0");
  const error = await assertRejects(() => connectTo(t.server), Error);
  assertMatch(error.message, /ProtocolVersion|HandshakeFailure/);
});

test("A client refuses OpenSSL's server without a certificate", async () => {
  await using server = await opensslServer("-nocert");
  await assertRejects(() => connectTo(server), Error, "HandshakeFailure");
});

const KEYS: [what: string, args: string[]][] = [
  ["RSA", ["-newkey", "rsa:2048"]],
  ["RSA-PSS", ["-newkey", "rsa:2048", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]],
  ["P-384", ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"]],
  ["Ed25519", ["-newkey", "ed25519"]],
];

for (const [what, args] of KEYS) {
  test(`A client verifies a certificate that OpenSSL has made with ${what}`, async () => {
    await using file = await withFiles({ "x": "subjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\n" });
    const name = "/O=Example, Inc./CN=";
    await runOpenssl(
      "req",
      "-x509",
      "-nodes",
      ...args,
      "-subj",
      `${name}ca`,
      "-keyout",
      file("ca.key"),
      "-out",
      file("ca"),
    );
    await runOpenssl("req", "-nodes", ...args, "-subj", `${name}own`, "-keyout", file("own.key"), "-out", file("csr"));
    const sign = args.slice(args.includes("-sigopt") ? 2 : 99);
    const by = ["-CA", file("ca"), "-CAkey", file("ca.key"), "-CAcreateserial", "-extfile", file("x"), ...sign];
    await runOpenssl("x509", "-req", "-in", file("csr"), "-out", file("own"), ...by);
    await using server = await opensslServer("-cert", file("own"), "-key", file("own.key"), "-rev");
    const caCerts = await Deno.readTextFile(file("ca"));
    await assertRejects(() => connectTo(server), Deno.errors.InvalidData, "has signed it");
    using client = await connectTo(server, { caCerts });
    await client.write("hello\n");
    assertEquals(await client.readLine(), "olleh");
    assertEquals(client.transport.tls.peer?.subject, "O=Example\\, Inc., CN=own");
  });
}
