import { assertEquals } from "@std/assert";
import { converse, startServer } from "../../kit/command.ts";

const HEADER = "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n";

Deno.test("With --proxy-protocol, a trusted proxy's clients are served and logged under their own addresses", async () => {
  await using server = await startServer(["--proxy-protocol", "127.0.0.1"]);
  assertEquals(await converse(server, `${HEADER}hello\n`), "HELLO\n");
  await server.stderrMatch(/info accepted connection from 192\.0\.2\.7:56324\n/);
  await server.stderrMatch(/info closing connection from 192\.0\.2\.7:56324 \(end, 1 line, /);
});

Deno.test("With --proxy-protocol, allow lists are about the client", async () => {
  await using server = await startServer(["--proxy-protocol=127.0.0.0/8", "--allow", "192.0.2.0/24"]);
  assertEquals(await converse(server, `${HEADER}hello\n`), "HELLO\n");
  assertEquals(
    await converse(server, `${HEADER.replace("192.0.2.7", "192.0.3.7")}hello\n`),
    "error: address not allowed\n",
  );
});

Deno.test("Without a header in time, a trusted proxy is rejected, and the log has the reason", async () => {
  const env = { SHOUTY_PROXY_PROTOCOL: "10.0.0.0/8,127.0.0.1", SHOUTY_PROXY_HEADER_TIMEOUT: "50ms" };
  await using server = await startServer([], { env, permissions: ["--allow-net", "--allow-env=SHOUTY_*"] });
  using _ = await Deno.connect({ port: server.port });
  await server.stderrMatch(
    /warn rejected connection from 127\.0\.0\.1:\d+ \(proxy-header\): no PROXY header within 50 ms\n/,
  );
});

Deno.test("Without --proxy-protocol, a header is a line like any other", async () => {
  await using server = await startServer();
  assertEquals(await converse(server, `${HEADER}hello\n`), `${HEADER.trim()}\nHELLO\n`);
});

Deno.test("The addresses of a PROXY header are logged without characters that could forge or hide a line", async () => {
  await using server = await startServer(["--proxy-protocol", "127.0.0.1", "--log-format", "text"]);
  const unix = (path: string) => {
    const address = Uint8Array.from({ length: 108 }, (_, i) => new TextEncoder().encode(path)[i] ?? 0);
    const signature = new TextEncoder().encode("\r\n\r\n\0\r\nQUIT\n");
    return Uint8Array.of(...signature, 0x21, 0x31, 0, 216, ...address, ...address, 0x68, 0x69, 0x0a);
  };
  const latin1 = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0));
  const headers = [
    ...[latin1("PROXY TCP4 \x9b31mX\x85evil\x7f 1.2.3.4 5 6\r\n"), latin1("PROXY \x1b[31mX 1.2.3.4 5 6\r\n")],
    ...[latin1("PROXY TCP4 1.2.3.4 1.2.3.4 \u00e2\u0080\u00a8 6\r\n"), unix("/x\u2028info listening")],
    ...[unix("/x\u202egnol"), unix("/x\u0085evil"), unix("/x\u009bevil"), unix(""), unix("/plain")],
  ];
  for (const header of headers) {
    using conn = await Deno.connect({ port: server.port });
    await conn.write(header);
    // Without its end, a connection that is served would be there for 10 s.
    await conn.closeWrite().catch(() => {});
    while (await conn.read(new Uint8Array(1024)).catch(() => null) !== null);
  }
  await server.stderrMatch(/closing connection from unix:\/plain/);
  assertEquals(server.stderr.match(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\p{Cs}]/gu)?.filter((it) => it !== "\n"), []);
  assertEquals(server.stderr.match(/rejected connection/g)?.length, headers.length - 2);
  assertEquals(server.stderr.trimEnd().split("\n").filter((line) => !/^\d{4}-\S+ (info|warn) /.test(line)), []);
});
