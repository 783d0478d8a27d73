import { assertEquals, assertGreater, assertLess, assertMatch, assertNotEquals } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { test } from "../kit/bounded.ts";
import { serve } from "@x/shouty";
import { listenUnix } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { converse, listening, NO_SIGNALS, type ServerProcess, Subprocess } from "../kit/command.ts";
import { withFiles } from "../kit/foreign/openssl.ts";
import { IDENTITY } from "../kit/tls.ts";

const EXAMPLES = new URL("../../examples/", import.meta.url);

test("shout_stream runs as its comment says", async () => {
  await using example = await run("shout_stream");
  assertEquals(await converse(example, "Hello. How are you?\n"), "HELLO. HOW ARE YOU?\n");
});

test("streams runs as its comment says", async () => {
  await using example = await run("streams");
  assertEquals(await converse(example, "Hello. How are you?\n"), "HELLO. HOW ARE YOU?\n");
});

test("memcached runs as its comment says", async () => {
  await using example = await run("memcached");
  const replies = await converse(example, "set greeting 0 0 5\r\nhello\r\nget greeting\r\n");
  assertEquals(replies, "STORED\r\nVALUE greeting 0 5\r\nhello\r\nEND\r\n");
});

test("redis runs as its comment says", async () => {
  await using example = await run("redis");
  assertEquals(await converse(example, "SET greeting hello EX 60\nGET greeting\n"), "+OK\r\n$5\r\nhello\r\n");
});

test("irc runs as its comment says", async () => {
  await using example = await run("irc");
  const replies = await converse(example, "NICK ada\nUSER ada 0 * :Ada Lovelace\nJOIN #math\n");
  assertMatch(replies, /^:irc\.shouty 001 ada :Welcome, ada!ada@user-1\r\n/);
  assertMatch(replies, /:ada!ada@user-1 JOIN #math\r\n(.*\r\n)*:irc\.shouty 353 ada = #math :ada\r\n.* 366 .*\r\n$/);
});

test("json_rpc runs as its comment says", async () => {
  await using example = await run("json_rpc");
  const request = `{"jsonrpc":"2.0","method":"subtract","params":{"minuend":42,"subtrahend":23},"id":1}`;
  const batch = `[{"jsonrpc":"2.0","method":"wait","params":[100]},` +
    `{"jsonrpc":"2.0","method":"sum","params":[1,2,3],"id":2}]`;
  const replies = `{"jsonrpc":"2.0","result":19,"id":1}\n[{"jsonrpc":"2.0","result":6,"id":2}]\n`;
  assertEquals(await converse(example, `${request}\n${batch}\n`), replies);
});

test("syslog runs as its comment says", async () => {
  await using example = await run("syslog");
  assertEquals(await converse(example, "<13>One\n16 <13>Two\nin a box<13>Three\0"), "");
  await example.stdoutMatch(/Three\n/);
  assertEquals(example.stdout, "<13>One\n<13>Two#012in a box\n<13>Three\n");
});

test("ingest runs as its comment says", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const file = `${dir}/metrics.db`;
    await using example = await run("ingest", { "metrics.db": file });
    assertEquals(await converse(example, "logins:1|c|@0.1\nusers:42|g\nanswer:3.5|ms:4|ms:320|ms\n"), "");
    using db = new DatabaseSync(file, { readOnly: true });
    const rows = db.prepare("SELECT name, value FROM metrics ORDER BY rowid").all();
    const values = rows.map(({ name, value }) => `${name} ${value}`);
    assertEquals(values, ["logins 1", "users 42", "answer 3.5", "answer 4", "answer 320"]);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

test("smtp runs as its comment says", async () => {
  await using example = await run("smtp");
  const commands = "HELO me\r\nMAIL FROM:<ada@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n";
  const replies = "220 mail.shouty ESMTP\r\n250 mail.shouty\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n" +
    "354 End with <CRLF>.<CRLF>\r\n250 2.0.0 Ok: queued as 1.1\r\n";
  assertEquals(await converse(example, `${commands}Hello, Bob!\r\n.\r\n`), replies);
  await example.stdoutMatch(/^from <ada@example\.org> to <bob@example\.org>: 13 bytes\n$/);
});

test("pop3 runs as its comment says", async () => {
  await using example = await run("pop3");
  const replies = await converse(example, "USER user\r\nPASS pass\r\nSTAT\r\n");
  assertEquals(replies, "+OK POP3 ready\r\n+OK\r\n+OK 2 mails\r\n+OK 2 290\r\n");
});

for (const [name, begin] of [["smtp", /250-STARTTLS\r\n/], ["pop3", /\r\nSTLS\r\n/]] as const) {
  test(`${name} offers TLS if it gets the files of a certificate and its key, and ends at a signal`, async () => {
    await using file = await withFiles({ "cert.pem": IDENTITY.cert, "key.pem": IDENTITY.key });
    const args = ["run", "-A", `examples/${name}.ts`, "0", file("cert.pem"), file("key.pem")];
    await using example = await listening(new Subprocess(Deno.execPath(), args));
    assertMatch(await converse(example, "EHLO me\r\nCAPA\r\n"), begin);
    if (NO_SIGNALS) return;
    using client = new TestClient(await Deno.connect({ port: example.port }));
    await client.readLine();
    example.signal("SIGTERM");
    assertEquals(await client.readAll(), name === "smtp" ? SHUTS_DOWN : "");
    client.close();
    assertEquals(await example.exitCode(), 0);
  });
}

const SHUTS_DOWN = "421 4.3.2 mail.shouty closes the connection: drained\r\n";

test("prefix_proxy runs as its comment says", async () => {
  await using upstream = await run("shout_stream");
  await using example = await run("prefix_proxy", { "127.0.0.1:8080": `127.0.0.1:${upstream.port}` });
  assertEquals(await converse(example, "hello\n"), "PROXY SAYS: HELLO\n");
});

test("byte_proxy runs as its comment says", async () => {
  await using redis = await run("redis");
  await using example = await run("byte_proxy", { "127.0.0.1:6379": `127.0.0.1:${redis.port}` });
  assertEquals(await converse(example, "SET greeting hello\nGET greeting\n"), "+OK\r\n$5\r\nhello\r\n");
});

test("byte_proxy takes a Unix socket as its target, and logs a target that cannot be reached", async () => {
  const dir = await Deno.makeTempDir();
  const path = `${dir}/s`;
  await using example = await run("byte_proxy", { "127.0.0.1:6379": `unix:${path}` });
  assertEquals(await converse(example, "hello\n"), "");
  await example.stderrMatch(/\n127\.0\.0\.1:\d+: closed, NotFound: Cannot connect to unix:\S+\/s: .*\n$/);
  {
    await using _target = serve({ listener: await listenUnix({ path }) });
    assertEquals(await converse(example, "hello\n"), "HELLO\n");
  }
  await Deno.remove(dir, { recursive: true });
});

test("balancer runs as its comment says, and ends at a signal", async () => {
  await using one = await run("shout_stream");
  await using two = await run("shout_stream");
  const upstreams = { "127.0.0.1:8080": `127.0.0.1:${one.port}`, "127.0.0.1:8081": `127.0.0.1:${two.port}` };
  await using example = await run("balancer", upstreams);
  assertEquals(await converse(example, "hello\nyou\ntwo\n"), "HELLO\nYOU\nTWO\n");
  if (NO_SIGNALS) return;
  example.signal("SIGTERM");
  assertEquals(await example.exitCode(), 0);
  assertEquals(example.stderr.split("\n").length, 2, example.stderr);
});

test("every example is a page that one can copy", async () => {
  let imported = 0;
  for await (const { name } of Deno.readDir(EXAMPLES)) {
    const lines = (await Deno.readTextFile(new URL(name, EXAMPLES))).split("\n");
    const isCode = (line: string) => !/^\s*(\/\/.*|\/?\*.*)?$/.test(line);
    assertLess(lines.filter(isCode).length, 150, name);
    const imports = lines.filter((line) => line.startsWith("import "));
    for (const line of imports) {
      assertMatch(line, / from "(@x\/shouty(\/ops)?|@std\/streams\/text-line-stream|node:sqlite)";$/, name);
    }
    imported += imports.length;
  }
  assertGreater(imported, 4, "The examples are read wrongly");
});

/** Runs an example by the command in its comment, but on a free port, and with other words in place of some. */
async function run(name: string, others: Record<string, string> = {}): Promise<ServerProcess> {
  const source = await Deno.readTextFile(new URL(`${name}.ts`, EXAMPLES));
  const [, command, port] = /`deno (run [^`]+\.ts (\d+)[^`]*)`/.exec(source)!;
  const words = command.replace(`.ts ${port}`, ".ts 0").matchAll(/"(.*)"|\S+/g);
  const args = Array.from(words, ([word, quoted]) => quoted ?? others[word] ?? word);
  const example = await listening(new Subprocess(Deno.execPath(), args));
  assertMatch(example.stderr, /^listening on \S+\n$/);
  assertNotEquals(example.port, Number(port));
  return example;
}
