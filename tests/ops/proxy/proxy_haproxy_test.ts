import { assertEquals, assertMatch } from "@std/assert";
import { type Conn, formatAddr, type Listener, type Transport } from "@x/shouty";
import { listenTls, proxyProtocol } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { test } from "../../kit/bounded.ts";
import { NO_HAPROXY, startHAProxy } from "../../kit/foreign/haproxy.ts";
import { NO_IPV6 } from "../../kit/sockets/ipv6.ts";
import { listenLoopback, startServer, type TestServer } from "../../kit/server.ts";
import { makeIdentity } from "../../kit/certificates.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";

function withHAProxy(name: string, body: () => Promise<void>, ipv6 = false): void {
  test(name, body, 20, `${NO_HAPROXY}${ipv6 ? NO_IPV6 : ""}`);
}

/** Answers each line with the connection's two addresses, and HAProxy's health check. */
function tell(line: string, { remoteAddr, localAddr }: Conn): string {
  return line === "check" ? "CHECK" : `${line} from ${formatAddr(remoteAddr)} to ${formatAddr(localAddr)}`;
}

function startTelling(from: string): TestServer {
  return startServer({ listener: proxyProtocol(listenLoopback(), { from }) }, tell);
}

/** Keeps the transports that a listener has accepted. */
function recording(listener: Listener, accepted: Transport[]): Listener {
  const accept = async () => {
    const transport = await listener.accept();
    accepted.push(transport);
    return transport;
  };
  return { addr: listener.addr, accept, close: () => listener.close() };
}

const WAYS = {
  "version 1": "send-proxy",
  "version 2": "send-proxy-v2",
  "version 2 with a checksum": "send-proxy-v2 proxy-v2-options crc32c",
};

for (const [version, send] of Object.entries(WAYS)) {
  withHAProxy(`Behind HAProxy with ${version}, handlers and events see the client's address`, async () => {
    await using t = startTelling("127.0.0.1");
    await using haproxy = await startHAProxy({ server: `127.0.0.1:${t.port} ${send}`, checked: t.closed() });
    const conn = await Deno.connect({ port: haproxy.port });
    using client = new TestClient(conn);
    const told = `from 127.0.0.1:${conn.localAddr.port} to 127.0.0.1:${haproxy.port}`;
    const lines = Array.from({ length: 5000 }, (_, i) => `${i}`);
    await client.write(lines.join("\n"));
    await client.closeWrite();
    assertEquals(await client.readAll(), lines.map((line) => `${line} ${told}\n`).join(""));
    const closed = await t.closed(2);
    for (const { remoteAddr, localAddr } of [closed.conn, t.all("accepted")[1].conn]) {
      assertEquals([remoteAddr, localAddr], [conn.localAddr, conn.remoteAddr]);
    }
    assertEquals(t.stats.rejected, 0);
  });

  withHAProxy(`HAProxy's health check with ${version} is a client under HAProxy's own address`, async () => {
    await using t = startTelling("127.0.0.1");
    const server = `127.0.0.1:${t.port} ${send} check-send-proxy`;
    await using _ = await startHAProxy({ server, checked: t.closed() });
    const [{ conn }] = t.all("accepted");
    assertEquals(formatAddr(conn.localAddr), `127.0.0.1:${t.port}`);
    assertEquals(t.all("closed")[0].lines, 1);
  });

  withHAProxy(
    `Behind an HAProxy that listens on IPv6 for both, with ${version}, addresses are told as Deno would`,
    async () => {
      await using t = startTelling("127.0.0.1");
      const server = `127.0.0.1:${t.port} ${send}`;
      await using haproxy = await startHAProxy({ server, bind: ":::PORT v4v6", checked: t.closed() });
      for (const [hostname, seen] of [["127.0.0.1", "::ffff:127.0.0.1"], ["::1", "::1"]]) {
        const conn = await Deno.connect({ hostname, port: haproxy.port });
        using client = new TestClient(conn);
        await client.write("hi\n");
        const told = `from [${seen}]:${conn.localAddr.port} to [${seen}]:${haproxy.port}`;
        assertEquals(await client.readLine(), `hi ${told}`);
      }
    },
    true,
  );

  withHAProxy(`An HAProxy that is not trusted gets no answer to its health check with ${version}`, async () => {
    await using t = startTelling("10.0.0.0/8");
    const server = `127.0.0.1:${t.port} ${send} check-send-proxy`;
    await using _ = await startHAProxy({ server, checked: t.closed() });
    const { reason, lines, error } = await t.closed();
    assertEquals([reason, lines], ["transport-error", 0]);
    assertEquals((error as Error).message, "A PROXY header from a peer that may not send one");
  });
}

withHAProxy("An HAProxy that is trusted and sends no header gets no answer to its health check", async () => {
  await using t = startTelling("127.0.0.1");
  await using _ = await startHAProxy({ server: `127.0.0.1:${t.port}`, checked: t.until("rejected") });
  const { reason, error } = await t.until("rejected");
  assertEquals(reason, "proxy-header");
  assertEquals((error as Error).message, "No PROXY header: the connection begins with something else");
  assertEquals(t.stats.accepted, 0);
});

withHAProxy("Behind an HAProxy that passes TLS on, the header comes before the handshake", async () => {
  const tcp = proxyProtocol(listenLoopback(), { from: "127.0.0.1" });
  const accepted: Transport[] = [];
  const listener = recording(await listenTls({ ...IDENTITY, listener: tcp }), accepted);
  await using t = startServer({ listener }, tell);
  const server = `127.0.0.1:${t.port} send-proxy-v2 proxy-v2-options unique-id check-ssl verify none`;
  const frontend = "unique-id-format %ci";
  await using haproxy = await startHAProxy({ server, frontend, checked: t.closed() });
  const conn = await Deno.connectTls({ port: haproxy.port, caCerts: [AUTHORITY.cert] });
  using client = new TestClient(conn);
  await client.write("hi\n");
  const { port } = conn.localAddr as Deno.NetAddr;
  assertEquals(await client.readLine(), `hi from 127.0.0.1:${port} to 127.0.0.1:${haproxy.port}`);
  assertEquals(new TextDecoder().decode(accepted.at(-1)!.proxy?.tlvs.get(0x05)), "127.0.0.1");
});

withHAProxy("An HAProxy that ends TLS tells the client's certificate, the name it asked for, and an id", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/server.pem`, IDENTITY.cert + IDENTITY.key);
  await Deno.writeTextFile(`${folder}/ca.pem`, AUTHORITY.cert);
  const accepted: Transport[] = [];
  const listener = recording(proxyProtocol(listenLoopback(), { from: "127.0.0.1" }), accepted);
  await using t = startServer({ listener }, tell);
  const options = "proxy-v2-options ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,crc32c,unique-id";
  const server = `127.0.0.1:${t.port} send-proxy-v2 ${options} check-send-proxy`;
  const bind =
    `127.0.0.1:PORT ssl crt ${folder}/server.pem ca-file ${folder}/ca.pem verify optional ca-ignore-err all crt-ignore-err all`;
  await using haproxy = await startHAProxy({ server, bind, frontend: "unique-id-format %ci-id", checked: t.closed() });
  const connect = async (identity = {}) => {
    const conn = await Deno.connectTls({
      hostname: "localhost",
      port: haproxy.port,
      caCerts: [AUTHORITY.cert],
      ...identity,
    });
    using client = new TestClient(conn);
    await client.write("hi\n");
    await client.readLine();
    return accepted.at(-1)!.proxy!;
  };
  const { tlvs, ...texts } = await connect(makeIdentity("Grégoire", { by: AUTHORITY }));
  assertEquals(texts, { authority: "localhost", tlsClientName: "Grégoire" });
  const told = Object.fromEntries(Array.from(tlvs, ([type, value]) => [type, new TextDecoder().decode(value)]));
  assertEquals([told[0x02], told[0x05], told[0x22]], ["localhost", "127.0.0.1-id", "Grégoire"]);
  assertMatch(told[0x21], /^TLSv1\.[23]$/);
  assertMatch(told[0x23], /AES|CHACHA/);
  for (const type of [0x03, 0x20, 0x24, 0x25]) assertEquals(tlvs.has(type), true, `${type}`);
  const nameless = await connect();
  assertEquals([nameless.authority, nameless.tlsClientName, nameless.tlvs.has(0x22)], ["localhost", undefined, false]);
  // This HAProxy goes on with a self-signed certificate, and tells the name in it.
  const stranger = await connect(makeIdentity("root"));
  assertEquals([new TextDecoder().decode(stranger.tlvs.get(0x22)), stranger.tlsClientName], ["root", undefined]);
  // HAProxy's health check is a connection of its own.
  assertEquals(accepted[0].proxy, undefined);
  await Deno.remove(folder, { recursive: true });
});
