import { assertEquals } from "@std/assert";
import { converse, startServer } from "./command.ts";

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

Deno.test("Without a header in time, a trusted proxy is turned away, and the log says why", async () => {
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
