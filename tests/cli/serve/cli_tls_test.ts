import { assertEquals, assertMatch } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { type Identity, makeIdentity } from "../../kit/certificates.ts";
import { runCommand, type ServerProcess, signalTest, startCommand, startServer } from "../../kit/command.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";

/** A folder with a certificate and its key, and flags that name them. */
async function withCertificate(identity: Identity = IDENTITY) {
  const folder = await Deno.makeTempDir();
  const [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map((name) => `${folder}/${name}`);
  const write = async (identity: Partial<Identity>) => {
    if (identity.cert !== undefined) await Deno.writeTextFile(cert, identity.cert);
    if (identity.key !== undefined) await Deno.writeTextFile(key, identity.key);
  };
  await write(identity);
  await Deno.writeTextFile(ca, AUTHORITY.cert);
  const permissions = ["--allow-net", `--allow-read=${cert},${key},${ca}`];
  const args = ["--tls-cert", cert, "--tls-key", key];
  return {
    ...{ folder, cert, key, ca, args, write, options: { permissions } },
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  };
}

async function connect(server: ServerProcess, options: Partial<Identity> = {}): Promise<TestClient> {
  const conn = await Deno.connectTls({ port: server.port, caCerts: [AUTHORITY.cert], ...options });
  await conn.handshake();
  return new TestClient(conn);
}

async function talk(client: TestClient, line: string): Promise<string | null> {
  await client.write(`${line}\n`);
  return await client.readLine();
}

signalTest("The command speaks TLS, and takes a new certificate at SIGHUP without losing a client", async () => {
  await using files = await withCertificate();
  await using server = await startServer(files.args, files.options);
  assertMatch(server.stderr, /info using certificate CN=server, valid until \d{4}-\d\d-\d\dT[\d:.]+Z\n/);
  using before = await connect(server);
  assertEquals(await talk(before, "hello"), "HELLO");
  await files.write(makeIdentity("new server", { by: AUTHORITY }));
  server.signal("SIGHUP");
  await server.stderrMatch(/info took new certificate CN=new server, valid until/);
  using after = await connect(server);
  assertEquals([await talk(before, "still here"), await talk(after, "hello")], ["STILL HERE", "HELLO"]);
  server.signal("SIGTERM");
  for (const client of [before, after]) await client.closeWrite();
  const { code, stderr } = await server.outcome();
  assertEquals([code, stderr.includes("clients may refuse")], [0, false], stderr);
});

const BAD: [what: string, change: Partial<Identity> & { gone?: boolean }, message: RegExp][] = [
  ["garbage", { cert: "nonsense" }, /cannot use --tls-cert ".*cert\.pem": there is no PEM certificate in it\n/],
  [
    "an expired one",
    makeIdentity("old", { by: AUTHORITY, days: [-9, -1] }),
    /cannot use --tls-cert ".*": it expired on/,
  ],
  ["one with another key", makeIdentity("other"), /cannot use --tls-key ".*": it does not belong to the certificate\n/],
  ["none at all", { gone: true }, /cannot read --tls-cert ".*cert\.pem": no such file or directory\n/],
];

for (const [what, { gone, ...change }, message] of BAD) {
  signalTest(
    `At SIGHUP the command keeps its certificate in place of ${what}, and takes a good one later`,
    async () => {
      await using files = await withCertificate();
      await using server = await startServer(files.args, files.options);
      if (what === "one with another key") await files.write({ cert: change.cert! });
      else if (gone) await Deno.remove(files.cert);
      else await files.write(change);
      server.signal("SIGHUP");
      const [, line] = await server.stderrMatch(/error kept the old certificate: (.*\n)/);
      assertMatch(line, message);
      using client = await connect(server);
      assertEquals(await talk(client, "hello"), "HELLO");
      await files.write(makeIdentity("good", { by: AUTHORITY }));
      server.signal("SIGHUP");
      await server.stderrMatch(/info took new certificate CN=good/);
    },
  );
}

signalTest("A SIGHUP while the command is still starting does not end it", async () => {
  await using files = await withCertificate();
  const path = `${files.folder}/socket`;
  await using command = startCommand([...files.args, "--unix", path], { permissions: ["--allow-all"] });
  const isThere = () => Deno.lstat(path).then(() => true, () => false);
  for (let left = 60_000; left > 0 && !await isThere(); left--) await new Promise((resolve) => setTimeout(resolve, 1));
  command.signal("SIGHUP");
  await command.stderrMatch(/listening on/);
  await command.stderrMatch(/took new certificate CN=server/);
  command.signal("SIGTERM");
  assertEquals((await command.outcome()).code, 0);
});

signalTest("SIGHUPs in a row do no harm", async () => {
  await using files = await withCertificate();
  await using server = await startServer(files.args, files.options);
  for (let i = 0; i < 5; i++) server.signal("SIGHUP");
  await server.stderrMatch(/took new/);
  using client = await connect(server);
  assertEquals(await talk(client, "hello"), "HELLO");
});

Deno.test("With --tls-client-ca, the command accepts only clients with a certificate", async () => {
  await using files = await withCertificate();
  await using server = await startServer([...files.args, "--tls-client-ca", files.ca], files.options);
  using known = await connect(server, makeIdentity("known", { by: AUTHORITY }));
  assertEquals(await talk(known, "hello"), "HELLO");
  using _stranger = await connect(server);
  await server.stderrMatch(
    /warn rejected connection from 127\.0\.0\.1:\d+ \(tls-handshake\): peer sent no certificates\n/,
  );
});

Deno.test("The command gives up a handshake at its deadline", async () => {
  await using files = await withCertificate();
  await using server = await startServer([...files.args, "--tls-handshake-timeout", "100ms"], files.options);
  using client = new TestClient(await Deno.connect({ port: server.port }));
  assertEquals(await client.readAll(), "");
  await server.stderrMatch(/\(tls-handshake\): no TLS handshake within 100 ms\n/);
});

signalTest("The command takes a certificate and its key from one file, and again at SIGHUP", async () => {
  await using files = await withCertificate({ cert: IDENTITY.key + IDENTITY.cert, key: "" });
  await using server = await startServer(files.args.slice(0, 2), files.options);
  using before = await connect(server);
  assertEquals(await talk(before, "hello"), "HELLO");
  const { cert, key } = makeIdentity("new server", { by: AUTHORITY });
  await files.write({ cert: cert + key });
  server.signal("SIGHUP");
  await server.stderrMatch(/info took new certificate CN=new server/);
});

Deno.test("The command warns of a certificate that has expired, and serves with it", async () => {
  await using files = await withCertificate(makeIdentity("old", { by: AUTHORITY, days: [-9, -1] }));
  await using server = await startServer(files.args, files.options);
  assertMatch(server.stderr, /warn clients may refuse the certificate in ".*cert\.pem": it expired on /);
});

Deno.test("The command words what is wrong with its certificate's files in one line: 2 if they are wrong, 1 if one cannot be read", async () => {
  await using files = await withCertificate();
  const { cert, key, ca, options } = files;
  const says = async (args: string[], message: string, permissions = options.permissions) => {
    const outcome = await runCommand(["--port", "0", ...args], { permissions });
    assertEquals(outcome, { code: outcome.code, stdout: "", stderr: `shouty: ${message}\n` });
    return outcome.code;
  };
  const tls = ["--tls-cert", cert, "--tls-key", key];
  const keyless = `cannot use --tls-cert "${cert}": there is no PEM private key in it, and no separate key is given`;
  assertEquals(await says(tls.slice(0, 2), keyless), 2);
  assertEquals(await says(tls.slice(2), "cannot use --tls-key without --tls-cert: expected both"), 2);
  assertEquals(await says(["--tls-client-ca", ca], "cannot use --tls-client-ca without --tls-cert: expected both"), 2);
  assertEquals(
    await says(["--tls-cert", ""], "cannot use --tls-cert without a value: expected a file's name, or off"),
    2,
  );
  const forbidden = `cannot read --tls-cert "${cert}": no permission to read it, which --allow-read=${cert} grants`;
  assertEquals(await says(tls, forbidden, ["--allow-net"]), 1);
  const swapped = ["--tls-cert", key, "--tls-key", cert];
  assertEquals(await says(swapped, `cannot use --tls-cert "${key}": there is no PEM certificate in it`), 2);
  await Deno.writeTextFile(ca, "nonsense");
  const noCa = `cannot use --tls-client-ca "${ca}": there is no PEM certificate in it`;
  assertEquals(await says([...tls, "--tls-client-ca", ca], noCa), 2);
  await Deno.remove(key);
  assertEquals(await says(tls, `cannot read --tls-key "${key}": no such file or directory`), 1);
  // What a variable has set is named by it.
  const env = { SHOUTY_TLS_CERT: cert, SHOUTY_TLS_KEY: key };
  const variables = await runCommand(["--port", "0"], {
    permissions: [...options.permissions, "--allow-env=SHOUTY_*"],
    env,
  });
  assertEquals(variables.stderr, `shouty: cannot read SHOUTY_TLS_KEY "${key}": no such file or directory\n`);
});

const NO_PROC = Deno.build.os === "linux" ? "" : " (skipped: only Linux has /proc)";

Deno.test({
  name: `A file that Deno opens only with all permissions ends the start with one line that says so${NO_PROC}`,
  ignore: NO_PROC !== "",
  async fn() {
    const reason = "Deno opens it only for programs that keep all permissions, and the command gives them up";
    for (const file of ["/dev/stdin", "/proc/self/environ"]) {
      const { code, stderr } = await runCommand(["--port", "0", "--tls-cert", file], { permissions: ["--allow-all"] });
      assertEquals([code, stderr], [1, `shouty: cannot read --tls-cert "${file}": ${reason}\n`]);
    }
  },
});
