import { assertEquals, assertMatch } from "@std/assert";
import { serve } from "@x/shouty";
import { listenTls, listenUnix } from "@x/shouty/ops";
import { test } from "../../kit/bounded.ts";
import { type Identity, makeIdentity } from "../../kit/certificates.ts";
import { HAS_SCRIPT, runCommand, startCommand, startInTerminal, Subprocess } from "../../kit/command.ts";
import { AUTHORITY, IDENTITY, startTls } from "../../kit/tls.ts";
import { connect, withPem } from "../../kit/tls/connect_command.ts";

const NO_UNIX = Deno.build.os === "windows" ? " (skipped: Windows has no Unix sockets in Deno)" : "";
const NO_TERMINAL = HAS_SCRIPT ? "" : " (skipped: util-linux's script is missing)";

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
