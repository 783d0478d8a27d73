import { assertEquals, assertMatch } from "@std/assert";
import { serve, serveConnections } from "@x/shouty";
import { test } from "../../kit/bounded.ts";
import { startTls } from "../../kit/tls.ts";
import { connect } from "../../kit/tls/connect_command.ts";

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
