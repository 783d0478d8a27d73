import { assert, assertEquals, assertMatch } from "@std/assert";
import { makeIdentity } from "../../kit/certificates.ts";
import { ask, converse, startCommand, startServer } from "../../kit/command.ts";
import { NO_EPOLL } from "../../kit/sockets/epoll.ts";
import { missingProgram } from "../../kit/foreign/foreign.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";

/** Text that forges a line, and hides another, where it is not escaped. */
const FORGERY = "\x1b[2K\r2026-01-01T00:00:00.000Z error forged\u2028\u202e\u061c\u0085password";
const UNSAFE = /(?!\n)[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u;

Deno.test("With --trace the log has what clients send and get, and says so loudly", async () => {
  await using server = await startServer(["--trace"]);
  assertMatch(server.stderr, /^\S+ warn TRACING: this log holds all that clients send and get, passwords too\. .*\n/);
  assertEquals(server.stderr.match(/TRACING/g)?.length, 1);
  const conn = await Deno.connect({ port: server.port });
  const { port } = conn.localAddr as Deno.NetAddr;
  assertEquals(await ask(conn, "hello\r\n"), "HELLO\n");
  conn.close();
  await server.stderrMatch(/ close\n/);
  const lines = [...server.stderr.matchAll(/ info wire (\d+) 127\.0\.0\.1:(\d+) (.*)\n/g)];
  assertEquals(lines.map(([, id, peer]) => [id, peer]), lines.map(() => ["1", `${port}`]));
  assertEquals(lines.map(([, , , text]) => text).slice(0, 3), [
    ...["open", String.raw`read 7 bytes "hello\r\n"`, String.raw`write 6 bytes "HELLO\n"`],
  ]);
});

Deno.test({
  name: `With --trace the log has the same on epoll${NO_EPOLL}`,
  ignore: NO_EPOLL !== "",
  async fn() {
    await using server = await startServer(["--trace", "--engine", "epoll"], {
      permissions: ["--allow-net", "--allow-ffi"],
    });
    assertEquals(await converse(server, "hello\n"), "HELLO\n");
    await server.stderrMatch(/ info wire 1 .* write 6 bytes "HELLO\\n"\n/);
  },
});

Deno.test("With --trace the log has decrypted bytes, the client's address and Telnet's commands", async () => {
  const folder = await Deno.makeTempDir();
  const cert = `${folder}/cert.pem`;
  await Deno.writeTextFile(cert, IDENTITY.cert + IDENTITY.key);
  const args = ["--trace", "--tls-cert", cert, "--telnet", "--hostname", "127.0.0.1", "--port", "0"];
  await using server = startCommand(args, { permissions: ["--allow-net", `--allow-read=${cert}`] });
  const [, port] = await server.stderrMatch(/listening on 127\.0\.0\.1:(\d+)/);
  await Deno.remove(folder, { recursive: true });
  using conn = await Deno.connectTls({ port: Number(port), caCerts: [AUTHORITY.cert] });
  await conn.write(Uint8Array.of(255, 253, 1, 104, 105, 10));
  await server.stderrMatch(/ read 6 bytes "\\xff\\xfd\\x01hi\\n"\n/);
  await server.stderrMatch(/ write 3 bytes "\\xff\\xfc\\x01"\n/);
});

Deno.test("Without --trace nothing that a client sends is in the log, not even at the level debug", async () => {
  for (const format of ["text", "json"]) {
    await using server = await startServer(["--log-level", "debug", "--log-format", format, "--max-line-bytes", "200"]);
    for (const sent of [`${FORGERY}\n`, `GET /password HTTP/1.1\r\n\r\n`, `${"password".repeat(40)}\n`, "password"]) {
      await converse(server, sent);
    }
    await server.stderrMatch(/line-too-long/);
    server.signal("SIGTERM");
    const { stderr } = await server.outcome();
    assertEquals(stderr.match(/password|forged/gi), null);
    assert(!UNSAFE.test(stderr), stderr);
  }
});

Deno.test("A client of TLS cannot forge a line by the names that it sends, or by what is no TLS", async () => {
  const folder = await Deno.makeTempDir();
  const [cert, ca] = [`${folder}/cert.pem`, `${folder}/ca.pem`];
  await Deno.writeTextFile(cert, IDENTITY.cert + IDENTITY.key);
  await Deno.writeTextFile(ca, AUTHORITY.cert);
  const args = ["--log-level", "debug", "--tls-cert", cert, "--tls-client-ca", ca];
  await using server = await startServer(args, { permissions: ["--allow-net", `--allow-read=${cert},${ca}`] });
  const evil = makeIdentity(`evil\nforged\x1b[31m\u202e`);
  const conn = await Deno.connectTls({ port: server.port, caCerts: [AUTHORITY.cert], ...evil });
  await conn.read(new Uint8Array(10)).catch(() => {});
  conn.close();
  await server.stderrMatch(/rejected connection .*\n/);
  const plain = await Deno.connect({ port: server.port });
  await plain.write(new TextEncoder().encode(FORGERY));
  await new Response(plain.readable).bytes().catch(() => {});
  await server.stderrMatch(/rejected connection .*\n(.*\n)*.*rejected connection .*\n/);
  assert(!UNSAFE.test(server.stderr) && !/evil|forged|password/.test(server.stderr), server.stderr);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("What is wrong in a proxy's header is quoted, and cannot forge a line", async () => {
  await using server = await startServer(["--proxy-protocol", "127.0.0.1"]);
  const sent = ["PROXY \x1b[31m\u202e\u2028 1 2 3 4\r\n", "PROXY TCP4 \x9b31m 192.0.2.1 1 2\r\n", "GET /password\r\n"];
  for (const header of sent) {
    const conn = await Deno.connect({ port: server.port });
    await conn.write(new TextEncoder().encode(header));
    await new Response(conn.readable).bytes().catch(() => {});
  }
  await server.stderrMatch(/(.*rejected connection .*\n){3}/);
  assert(!UNSAFE.test(server.stderr) && !/password/.test(server.stderr), server.stderr);
});

const PYTHON = await missingProgram("python3", "--version");

/** A client that binds its socket to a path with a line end, an ANSI sequence and a mark of direction in it. */
const BIND = `
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1] + "/\\n2026 error forged\\x1b[31m\\u202e")
s.connect(sys.argv[1] + "/s")
s.sendall(b"hi\\n")
s.recv(9)`;

Deno.test({
  name: `A Unix socket's path that a client has chosen cannot forge a line${PYTHON}`,
  ignore: PYTHON !== "",
  async fn() {
    const folder = await Deno.makeTempDir();
    await using server = startCommand(["--unix", `${folder}/s`], { permissions: ["--allow-all"] });
    await server.stderrMatch(/listening/);
    const { success } = await new Deno.Command("python3", { args: ["-c", BIND, folder] }).output();
    assertEquals(success, true);
    await server.stderrMatch(/accepted connection from unix:.*\/\\u000a2026 error forged\\u001b\[31m\\u202e\n/);
    assert(!UNSAFE.test(server.stderr), server.stderr);
    await Deno.remove(folder, { recursive: true });
  },
});
