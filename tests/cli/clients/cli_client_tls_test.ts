import { assertEquals, assertMatch } from "@std/assert";
import { serve, serveConnections } from "@x/shouty";
import { listenTls, listenUnix } from "@x/shouty/ops";
import { test } from "../../kit/bounded.ts";
import { Authority, type Identity, makeIdentity } from "../../kit/certificates.ts";
import { HAS_SCRIPT, type Outcome, runCommand, startCommand, startInTerminal, Subprocess } from "../../kit/command.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";
import { opensslServer, test as opensslTest, withFiles } from "../../kit/foreign/openssl.ts";
import { AUTHORITY, IDENTITY, startTls } from "../../kit/tls.ts";

const NO_UNIX = Deno.build.os === "windows" ? " (skipped: Windows has no Unix sockets in Deno)" : "";
const NO_SOCAT = await missingProgram("socat", "-V");
const NO_TERMINAL = HAS_SCRIPT ? "" : " (skipped: util-linux's script is missing)";

const CLIENT = makeIdentity("client", { by: AUTHORITY });

/** A folder with the files that flags name. */
function withPem() {
  const other = new Authority("another authority").cert;
  const [cert, key] = [CLIENT.cert, CLIENT.key];
  return withFiles({ "ca.pem": AUTHORITY.cert, "other.pem": other, "cert.pem": cert, "key.pem": key });
}

/** A folder with the files that a server reads. */
function withServerPem() {
  return withFiles({ "cert.pem": IDENTITY.cert, "key.pem": IDENTITY.key, "ca.pem": AUTHORITY.cert });
}

/** Runs the client with permission to read files. */
function connect(address: string, input: string, ...flags: string[]): Promise<Outcome> {
  return runCommand(["connect", address, ...flags], { input, permissions: ["--allow-net", "--allow-read"] });
}

test("connect --tls speaks TLS, wherever the flag stands, and verifies the server by the host", async () => {
  await using files = await withPem();
  await using t = await startTls();
  for (const host of ["localhost", "127.0.0.1"]) {
    for (
      const args of [["--tls", `${host}:${t.port}`], [`${host}:${t.port}`, "--tls"], [`${host}:${t.port}`, "--tls=on"]]
    ) {
      const options = { input: "hello\nno end", permissions: ["--allow-net", "--allow-read"] };
      const outcome = await runCommand(["connect", ...args, "--tls-ca", files("ca.pem")], options);
      assertEquals(outcome, { code: 0, stdout: "HELLO\nNO END\n", stderr: "" });
    }
  }
});

test("connect --tls gets through more than the buffers on the way hold", async () => {
  await using files = await withPem();
  await using t = await startTls();
  const input = "0123456789abcde\n".repeat(500_000);
  const { code, stdout, stderr } = await connect(`localhost:${t.port}`, input, "--tls", "--tls-ca", files("ca.pem"));
  assertEquals([code, stderr], [0, ""]);
  assertEquals(stdout === input.toUpperCase(), true, "Replies are missing or wrong");
});

test("connect --tls answers line by line, and says that the server has ended", async () => {
  await using files = await withPem();
  await using t = await startTls({}, { maxLines: Infinity }, {
    conversation: async (conn) => {
      for await (const line of conn.lines) {
        if (line === "bye") return;
        await conn.write(`${line}!\n`);
      }
    },
  });
  const args = ["connect", "--tls", `127.0.0.1:${t.port}`, "--tls-ca", files("ca.pem")];
  await using client = startCommand(args, { permissions: ["--allow-net", "--allow-read"] });
  await client.type("one\n");
  await client.stdoutMatch(/^one!\n$/);
  await client.type("bye\n");
  const { code, stdout, stderr } = await client.outcome();
  assertEquals([code, stdout, stderr], [0, "one!\n", `shouty: 127.0.0.1:${t.port} has closed the connection\n`]);
});

const REFUSED: [what: string, identity: Partial<Identity>, flags: string[], message: string][] = [
  [
    "is for another name",
    {},
    ["--tls-ca", "ca.pem", "--tls-server-name", "example.org"],
    "it is for DNS:localhost, IP Address:127.0.0.1, and not for example.org",
  ],
  [
    "was signed by another authority",
    {},
    ["--tls-ca", "other.pem"],
    "none of the authorities in --tls-ca has signed it",
  ],
  ["was signed by nobody that Deno trusts", {}, [], "none of the authorities that Deno trusts has signed it"],
  ["has expired", makeIdentity("old", { by: AUTHORITY, days: [-9, -1] }), ["--tls-ca", "ca.pem"], "it expired on 2"],
  [
    "signs itself",
    makeIdentity("self"),
    ["--tls-ca", "ca.pem"],
    "it is self-signed, and not one of the authorities in --tls-ca",
  ],
];

for (const [what, identity, flags, message] of REFUSED) {
  test(`connect --tls says in one line that the server's certificate ${what}, and sends nothing`, async () => {
    await using files = await withPem();
    await using t = await startTls(identity);
    const args = flags.map((flag) => flag.endsWith(".pem") ? files(flag) : flag);
    const { code, stdout, stderr } = await connect(`127.0.0.1:${t.port}`, "secret\n", "--tls", ...args);
    assertEquals([code, stdout], [1, ""]);
    const begins = `shouty: cannot connect to 127.0.0.1:${t.port}: the server's certificate is not valid (${message}`;
    assertEquals([stderr.slice(0, begins.length), stderr.split("\n").length], [begins, 2]);
    assertEquals(t.stats.accepted, 0);
  });
}

test("connect shows a client certificate, and says that the server refuses it without one", async () => {
  await using files = await withPem();
  await using t = await startTls({ clientCa: AUTHORITY.cert });
  const [address, ...tls] = [`localhost:${t.port}`, "--tls", "--tls-ca", files("ca.pem")];
  const known = await connect(
    address,
    "hello\n",
    ...tls,
    "--tls-cert",
    files("cert.pem"),
    "--tls-key",
    files("key.pem"),
  );
  assertEquals(known, { code: 0, stdout: "HELLO\n", stderr: "" });
  const stranger = await connect(address, "hello\n", ...tls);
  assertEquals([stranger.code, stranger.stdout], [1, ""]);
  assertEquals(
    stranger.stderr,
    `shouty: lost the connection to ${address}: the peer refused TLS (CertificateRequired)\n`,
  );
});

for (const [size, input] of [["little", "hello\n"], ["much", "0123456789abcde\n".repeat(100_000)]]) {
  test(`connect recognizes a TLS server to which it has sent ${size} plain text, and keeps its bytes from stdout`, async () => {
    await using t = await startTls();
    const { code, stdout, stderr } = await connect(`localhost:${t.port}`, input);
    const why = "in plain text: the server speaks TLS, which needs --tls";
    assertEquals([code, stdout, stderr], [1, "", `shouty: cannot talk to localhost:${t.port} ${why}\n`]);
  });
}

test("connect takes bytes for TLS only if they are the first, and a whole alert", async () => {
  const alert = [21, 3, 3, 0, 2, 2, 50];
  for (const bytes of [[21], [21, 3, 3, 0, 2, 1, 0], [21, 3, 3, 0, 3, 2, 50], [10, ...alert]]) {
    await using server = serveConnections({ port: 0 }, async (conn) => {
      await conn.write(Uint8Array.from(bytes));
      await conn.readLine();
    });
    const { port } = server.addr as Deno.NetAddr;
    const { code, stdout } = await connect(`127.0.0.1:${port}`, "");
    assertEquals([code, stdout], [0, String.fromCharCode(...bytes)]);
  }
});

/** Servers that do not speak TLS, and what the client says of each. */
const PLAIN: [what: string, conversation: (conn: Deno.TcpConn) => Promise<unknown>, message: RegExp][] = [
  [
    "greets",
    (conn) => conn.write(new TextEncoder().encode("220 hello\r\n")),
    /: the server does not speak TLS at this port\n$/,
  ],
  ["sends back what it gets", echo, /: the server does not speak TLS at this port\n$/],
  [
    "closes",
    (conn) => conn.read(new Uint8Array(4096)).then(() => conn.close()),
    /: the peer ended the connection during the TLS handshake; it may not speak TLS at this port\n$/,
  ],
  ["is silent", () => Promise.resolve(), /: no answer to TLS within 0\.5 s\n$/],
];

async function echo(conn: Deno.TcpConn): Promise<void> {
  const buffer = new Uint8Array(4096);
  const count = await conn.read(buffer);
  await conn.write(buffer.subarray(0, count!));
}

for (const [what, conversation, message] of PLAIN) {
  test(`connect --tls says that a server which ${what} does not speak TLS`, async () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr;
    const outcome = connect(
      `127.0.0.1:${port}`,
      "hello\n",
      "--tls",
      "--timeout",
      what === "is silent" ? "500ms" : "30s",
    );
    using conn = await listener.accept();
    await conversation(conn);
    const { code, stdout, stderr } = await outcome;
    assertEquals([code, stdout], [1, ""]);
    assertMatch(stderr, new RegExp(`^shouty: cannot connect to 127\\.0\\.0\\.1:${port}` + message.source));
  });
}

test("connect --tls says what the alert means that shouty's plain port answers", async () => {
  await using server = serve({ hostname: "127.0.0.1", port: 0, answerMisdirected: true });
  const { port } = server.addr as Deno.NetAddr;
  const { code, stdout, stderr } = await connect(`127.0.0.1:${port}`, "hello\n", "--tls");
  const why = "the peer refused TLS (HandshakeFailure); it may not speak TLS at this port, or ask for --tls-cert";
  assertEquals([code, stdout, stderr], [1, "", `shouty: cannot connect to 127.0.0.1:${port}: ${why}\n`]);
});

test("connect words in one line what is wrong with its flags, before it connects", async () => {
  await using files = await withPem();
  const says = async (args: string[], message: string, permissions = ["--allow-net", "--allow-read"]) => {
    const { code, stdout, stderr } = await runCommand(["connect", ...args], { permissions });
    assertEquals([stdout, stderr], ["", `shouty: ${message}\n`]);
    return code;
  };
  const [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(files);
  for (const flag of ["--tls-ca", "--tls-cert", "--tls-key", "--tls-server-name"]) {
    assertEquals(await says(["h:1", flag, "x"], `cannot use ${flag} without --tls: expected both`), 2);
  }
  assertEquals(
    await says(["h:1", "--tls", "--tls-key", "x"], "cannot use --tls-key without --tls-cert: expected both"),
    2,
  );
  const nameless = "cannot use --tls on a Unix socket without --tls-server-name: expected both";
  assertEquals(await says(["unix:/x", "--tls"], nameless), 2);
  const tls = ["127.0.0.1:1", "--tls"];
  const noName = 'cannot use --tls-server-name "127.1": expected a host name or an IP address';
  assertEquals(await says([...tls, "--tls-server-name", "127.1"], noName), 2);
  const forbidden = `cannot read --tls-ca "${ca}": no permission to read it, which --allow-read=${ca} grants`;
  assertEquals(await says([...tls, "--tls-ca", ca], forbidden, ["--allow-net"]), 1);
  const gone = `cannot read --tls-ca "${ca}.gone": no such file or directory`;
  assertEquals(await says([...tls, "--tls-ca", `${ca}.gone`], gone), 1);
  // The name of the file, and not that of the library's option.
  const noCa = `cannot use --tls-ca "${key}": there is no PEM certificate in it`;
  assertEquals(await says([...tls, "--tls-ca", key], noCa), 2);
  const keyless = `cannot use --tls-cert "${cert}": there is no PEM private key in it, and no separate key is given`;
  assertEquals(await says([...tls, "--tls-cert", cert], keyless), 2);
});

test(
  "connect takes a Unix socket, in plain text and under TLS",
  async () => {
    await using files = await withPem();
    const path = files("shouty.sock");
    const permissions = [
      `--allow-net=unix:${path}`,
      `--allow-read=${path},${files("ca.pem")}`,
      `--allow-write=${path}`,
    ];
    const options = { input: "hello\n", permissions };
    const expected = { code: 0, stdout: "HELLO\n", stderr: "" };
    {
      await using _server = serve({ listener: await listenUnix({ path }) });
      assertEquals(await runCommand(["connect", `unix:${path}`], options), expected);
      const forbidden = await runCommand(["connect", `unix:${path}`], { ...options, permissions: ["--allow-net"] });
      const grant = `no permission to read and write it, which --allow-read=${path} --allow-write=${path} grants`;
      assertEquals(forbidden, { code: 1, stdout: "", stderr: `shouty: cannot connect to unix:${path}: ${grant}\n` });
    }
    const gone = await runCommand(["connect", `unix:${path}`], options);
    assertEquals(gone.stderr, `shouty: cannot connect to unix:${path}: no such file or directory\n`);
    await using _server = serve({ listener: await listenTls({ listener: await listenUnix({ path }), ...IDENTITY }) });
    const tls = ["--tls", "--tls-ca", files("ca.pem"), "--tls-server-name", "localhost"];
    assertEquals(await runCommand(["connect", `unix:${path}`, ...tls], options), expected);
  },
  60,
  NO_UNIX,
);

test("connect keeps no permission once it is connected", async () => {
  await using files = await withPem();
  await using t = await startTls();
  const args = ["connect", "--tls", `localhost:${t.port}`, "--tls-ca", files("ca.pem")];
  const script = `
    const { main } = await import(${JSON.stringify(new URL("../../../cli.ts", import.meta.url))});
    const NAMES = ["net", "read", "write", "ffi", "run", "env", "sys", "import"];
    const granted = () => NAMES.filter((name) => Deno.permissions.querySync({ name }).state === "granted").join();
    const { open } = Deno;
    Deno.open = (path) => (console.log("reading: " + granted()), open(path));
    Deno.stdin.read = () => (console.log("connected: " + granted()), Promise.resolve(null));
    await main(${JSON.stringify(args)});
  `;
  await Deno.writeTextFile(files("main.ts"), script);
  const config = `${import.meta.dirname}/../../../deno.json`;
  const deno = ["run", "--no-prompt", "--config", config, "--allow-all", files("main.ts")];
  await using process = new Subprocess(Deno.execPath(), deno);
  const { code, stdout, stderr } = await process.outcome();
  assertEquals([code, stdout, stderr], [0, "reading: net,read\nconnected: \n", ""]);
});

test(
  "connect --tls asks no question on a terminal, whatever permission is missing",
  async () => {
    await using files = await withPem();
    await using t = await startTls();
    const run = ["run", "--allow-net", "mod.ts", "connect", `localhost:${t.port}`];
    await using unread = startInTerminal([...run, "--tls", "--tls-ca", files("ca.pem")]);
    const { code, stdout } = await unread.outcome();
    assertEquals(code, 1);
    assertMatch(stdout, /^shouty: cannot read --tls-ca ".*": no permission to read it, which .* grants\r\n$/);
    await using unknown = startInTerminal([...run, "--tls"]);
    assertMatch(
      (await unknown.outcome()).stdout,
      /^shouty: cannot connect to .* the authorities that Deno trusts .*\r\n$/,
    );
  },
  60,
  NO_TERMINAL,
);

opensslTest("connect --tls talks with OpenSSL's server, and shows it a certificate", async () => {
  await using files = await withPem();
  await using own = await withServerPem();
  const identity = ["-cert", own("cert.pem"), "-key", own("key.pem"), "-rev", "-naccept", "1"];
  for (const version of ["-tls1_2", "-tls1_3"]) {
    await using server = await opensslServer(
      ...identity,
      version,
      "-Verify",
      "1",
      "-verify_return_error",
      "-CAfile",
      own("ca.pem"),
    );
    const tls = ["--tls", "--tls-ca", files("ca.pem"), "--tls-cert", files("cert.pem"), "--tls-key", files("key.pem")];
    const outcome = await connect(`localhost:${server.port}`, "hello\nthere\n", ...tls);
    assertEquals(outcome, { code: 0, stdout: "olleh\nereht\n", stderr: "" });
  }
});

opensslTest("connect tells a TLS connection that was cut off from one that has ended", async () => {
  await using files = await withPem();
  await using own = await withServerPem();
  await using server = await opensslServer("-cert", own("cert.pem"), "-key", own("key.pem"), "-rev");
  const args = ["connect", "--tls", `localhost:${server.port}`, "--tls-ca", files("ca.pem")];
  await using client = startCommand(args, { permissions: ["--allow-net", "--allow-read"] });
  await client.type("hello\n");
  await client.stdoutMatch(/^olleh\n$/);
  server.signal("SIGKILL");
  const { code, stderr } = await client.outcome();
  assertEquals(code, 1);
  const lost = `shouty: lost the connection to localhost:${server.port}: `;
  assertMatch(stderr, new RegExp(`^${lost}the peer ended the connection without TLS's close_notify\n$`));
});

opensslTest("connect suggests --tls if OpenSSL closes without a reply to plain text", async () => {
  await using own = await withServerPem();
  await using server = await opensslServer("-cert", own("cert.pem"), "-key", own("key.pem"));
  const { code, stdout, stderr } = await connect(`127.0.0.1:${server.port}`, "hello there\n");
  const said = "has closed the connection without a reply; if it speaks TLS, use --tls";
  assertEquals([code, stdout, stderr], [0, "", `shouty: 127.0.0.1:${server.port} ${said}\n`]);
});

test(
  "connect --tls and socat take each other's bytes",
  async () => {
    await using files = await withPem();
    await using own = await withServerPem();
    const listen = `OPENSSL-LISTEN:0,bind=127.0.0.1,cert=${own("cert.pem")},key=${own("key.pem")},verify=0`;
    await using server = new Subprocess("socat", ["-d", "-d", listen, "EXEC:cat"]);
    const [, port] = await server.stderrMatch(/listening on .*:(\d+)/);
    const input = "0123456789abcde\n".repeat(100_000);
    const { code, stdout, stderr } = await connect(`localhost:${port}`, input, "--tls", "--tls-ca", files("ca.pem"));
    assertEquals([code, stderr, stdout === input], [0, "", true]);
  },
  60,
  NO_SOCAT,
);
