import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { TestClient } from "@x/shouty/testing";
import { makeIdentity } from "../../kit/certificates.ts";
import { runCommand, signalTest, startCommand, type Subprocess } from "../../kit/command.ts";
import { NO_EPOLL } from "../../kit/sockets/epoll.ts";
import { openssl, test as withOpenssl } from "../../kit/foreign/openssl.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";

const NO_UNIX = Deno.build.os === "windows" ? " (skipped: Windows has no Unix sockets in Deno)" : "";
const HEADER = "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n";

/** A folder with a certificate, and a path for a socket. */
async function withFolder() {
  const folder = await Deno.makeTempDir();
  const [cert, unix] = [`${folder}/cert.pem`, `${folder}/shouty.sock`];
  const write = ({ cert: text, key } = IDENTITY) => Deno.writeTextFile(cert, text + key);
  await write();
  return {
    ...{ cert, unix, write },
    permissions: ["--allow-net", `--allow-read=${cert},${unix}`, `--allow-write=${unix}`],
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  };
}

type Folder = Awaited<ReturnType<typeof withFolder>>;

/** Starts the command on the loopback, with flags or with variables. */
function start({ permissions }: Folder, args: string[], env: Record<string, string> = {}): Subprocess {
  // As a variable: the flag is refused where the only place to listen at is a Unix socket.
  const variables = { SHOUTY_HOSTNAME: "127.0.0.1", ...env };
  return startCommand(args, { permissions: [...permissions, "--allow-env=SHOUTY_*"], env: variables });
}

/** Waits until the command listens on this many addresses; returns them as its log has them, without their ports. */
async function addressesOf(server: Subprocess, count: number): Promise<{ ports: number[]; said: string[] }> {
  const lines = await server.stderrMatch(new RegExp(`(?:.*info listening on .*\n){${count}}`));
  const said = Array.from(lines[0].matchAll(/listening on (.*)\n/g), ([, text]) => text);
  const ports = said.map((text) => Number(/:(\d+)/.exec(text)?.[1]));
  return { ports, said: said.map((text) => text.replace(/:\d+/, "").replace(/unix:.*\//, "unix:")) };
}

async function connectTo(port: number, tls = false): Promise<TestClient> {
  return new TestClient(
    tls ? await Deno.connectTls({ port, caCerts: [AUTHORITY.cert] }) : await Deno.connect({ port }),
  );
}

async function connectUnix({ unix }: Folder): Promise<TestClient> {
  return new TestClient(await Deno.connect({ transport: "unix", path: unix }));
}

async function shout(client: TestClient, line = "hello"): Promise<void> {
  await client.write(`${line}\n`);
  assertEquals(await client.readLine(), line.slice(line.lastIndexOf("\n") + 1).toUpperCase());
}

signalTest(`A port, a port for TLS and a Unix socket share their limits and one drain${NO_UNIX}`, async () => {
  await using folder = await withFolder();
  const args = ["--port", "0", "--tls-port", "0", "--tls-cert", folder.cert, "--unix", folder.unix];
  await using server = start(folder, [...args, "--max-connections", "3"]);
  const { ports, said } = await addressesOf(server, 3);
  assertEquals(said, ["127.0.0.1", "127.0.0.1 (TLS)", "unix:shouty.sock"]);
  using plain = await connectTo(ports[0]);
  using secure = await connectTo(ports[1], true);
  using unix = await connectUnix(folder);
  for (const client of [plain, secure, unix]) await shout(client);
  using fourth = await connectUnix(folder);
  assertEquals(await fourth.readAll(), "error: more than 3 connections\n");
  await folder.write(makeIdentity("new server", { by: AUTHORITY }));
  server.signal("SIGHUP");
  await server.stderrMatch(/took new certificate CN=new server/);
  server.signal("SIGTERM");
  await server.stderrMatch(/shutting down/);
  for (const client of [plain, secure, unix]) {
    await shout(client, "still here");
    await client.closeWrite();
  }
  const { code, stderr } = await server.outcome();
  assertEquals([code, stderr.match(/certificate CN=/g)?.length], [0, 2], stderr);
  assertMatch(stderr, /all connections closed\n$/);
  for (const port of ports.slice(0, 2)) await assertRejects(() => connectTo(port), Deno.errors.ConnectionRefused);
  await assertRejects(() => Deno.lstat(folder.unix), Deno.errors.NotFound);
});

/** Flags or variables, and the addresses that follow: `%` stands for the certificate, `@` for the socket. */
const CASES: [args: string, env: Record<string, string>, addresses: string[]][] = [
  ["--port 0 --tls-cert %", {}, ["127.0.0.1 (TLS)"]],
  ["--tls-port 0 --tls-cert %", {}, ["127.0.0.1 (TLS)"]],
  ["--tls-cert %", { SHOUTY_TLS_PORT: "0" }, ["127.0.0.1 (TLS)"]],
  ["--port 0 --tls-port off --tls-cert %", {}, ["127.0.0.1 (TLS)"]],
  ["--tls-port 0 --tls-cert %", { SHOUTY_PORT: "0" }, ["127.0.0.1", "127.0.0.1 (TLS)"]],
  ["--unix @", {}, ["unix:shouty.sock"]],
  ["--unix @", { SHOUTY_PORT: "tcp://10.96.0.12:8080" }, ["unix:shouty.sock"]],
  ["--unix @ --tls-cert %", {}, ["unix:shouty.sock (TLS)"]],
  ["--unix @", { SHOUTY_PORT: "0" }, ["127.0.0.1", "unix:shouty.sock"]],
  ["--unix @ --port 0 --tls-cert %", {}, ["127.0.0.1 (TLS)", "unix:shouty.sock (TLS)"]],
  ["--unix @ --tls-port 0 --tls-cert %", {}, ["127.0.0.1 (TLS)", "unix:shouty.sock"]],
];

for (const [args, env, addresses] of CASES) {
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value} `).join("");
  Deno.test({
    name: `${variables}${args} listens on ${addresses.join(" and ")}${NO_UNIX}`,
    ignore: NO_UNIX !== "",
    async fn() {
      await using folder = await withFolder();
      const words = args.replace("%", folder.cert).replace("@", folder.unix).split(" ");
      await using server = start(folder, words, env);
      const { ports, said } = await addressesOf(server, addresses.length);
      assertEquals(said, addresses);
      for (const [i, address] of addresses.entries()) {
        if (address.startsWith("unix") && address.includes("TLS")) continue;
        using client = await (address.startsWith("unix") ? connectUnix(folder) : connectTo(
          ports[i],
          address.includes("TLS"),
        ));
        await shout(client);
      }
      assertEquals(server.stderr.match(/listening/g)?.length, addresses.length);
    },
  });
}

withOpenssl("OpenSSL's client is answered at --tls-port, and at the plain port it gets an alert", async () => {
  await using folder = await withFolder();
  await using server = start(folder, ["--port", "0", "--tls-port", "0", "--tls-cert", folder.cert]);
  const [plain, secure] = (await addressesOf(server, 2)).ports;
  await using client = openssl({ port: secure }, "-quiet");
  await client.type("hello\n");
  await client.stdoutMatch(/^HELLO\n/);
  await using mistaken = openssl({ port: plain });
  await mistaken.stderrMatch(/alert/);
  await server.stderrMatch(/\(misdirected,/);
});

Deno.test({
  name: `Each address has the PROXY protocol if its peers can be on the list${NO_UNIX}`,
  ignore: NO_UNIX !== "",
  async fn() {
    await using folder = await withFolder();
    const cases = [["unix", "port"], ["127.0.0.1", "socket"], ["127.0.0.1,unix", ""]];
    for (const [list, without] of cases) {
      const args = ["--port", "0", "--tls-port", "0", "--tls-cert", folder.cert, "--unix", folder.unix];
      await using server = start(folder, [...args, "--proxy-protocol", list]);
      const { ports } = await addressesOf(server, 3);
      using plain = await connectTo(ports[0]);
      using socket = await connectUnix(folder);
      for (const [client, where] of [[plain, "port"], [socket, "socket"]] as const) {
        await client.write(`${HEADER}hi\n`);
        // Elsewhere a header is a line like any other.
        if (where === without) assertEquals(await client.readLine(), HEADER.trim());
        assertEquals(await client.readLine(), "HI");
      }
      // In front of a TLS handshake.
      using secure = await Deno.connect({ port: ports[1] });
      if (without !== "port") await secure.write(new TextEncoder().encode(HEADER));
      using tls = new TestClient(
        await Deno.startTls(secure, { hostname: "localhost", caCerts: [AUTHORITY.cert] }),
      );
      await shout(tls);
      await server.stderrMatch(/(?:accepted connection[^]*){3}/);
      const proxied = server.stderr.match(/accepted connection from 192\.0\.2\.7:56324\n/g)?.length;
      assertEquals(proxied, { port: 1, socket: 2, "": 3 }[without]);
    }
  },
});

Deno.test({
  name: `With --telnet on, every address answers Telnet's commands${NO_UNIX}`,
  ignore: NO_UNIX !== "",
  async fn() {
    await using folder = await withFolder();
    await using server = start(folder, ["--port", "0", "--unix", folder.unix, "--telnet", "on"]);
    const { ports } = await addressesOf(server, 2);
    for (const client of [await connectTo(ports[0]), await connectUnix(folder)]) {
      await client.write(Uint8Array.of(0x68, 0x69, 0xff, 0xf1, 0x0a));
      assertEquals(await client.readLine(), "HI");
      client.close();
    }
  },
});

Deno.test(`Both ports have their sockets from epoll${NO_EPOLL}`, async () => {
  if (NO_EPOLL !== "") return;
  await using folder = await withFolder();
  const permissions = [...folder.permissions, "--allow-ffi"];
  const args = ["--engine", "epoll", "--port", "0", "--tls-port", "0", "--tls-cert", folder.cert];
  await using server = start({ ...folder, permissions }, [...args, "--log-level", "debug"]);
  const { ports } = await addressesOf(server, 2);
  for (const [i, port] of ports.entries()) {
    using client = await connectTo(port, i === 1);
    await shout(client);
  }
  assertEquals(server.stderr.match(/engine is epoll\n/g)?.length, 1);
});

Deno.test("In JSON, the log says which address speaks TLS", async () => {
  await using folder = await withFolder();
  const args = ["--port", "0", "--tls-port", "0", "--tls-cert", folder.cert, "--log-format", "json"];
  await using server = start(folder, args);
  const [lines] = await server.stderrMatch(/(.*"event":"listening".*\n){2}/);
  assertEquals(lines.trim().split("\n").map((line) => JSON.parse(line).tls), [undefined, true]);
});

Deno.test({
  name: `If one address cannot be had, the command listens on none, and leaves no socket's file${NO_UNIX}`,
  ignore: NO_UNIX !== "",
  async fn() {
    await using folder = await withFolder();
    const { cert, unix, permissions } = folder;
    using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = taken.addr;
    const says = async (args: string[], code: number, message: string, allowed = permissions) => {
      const outcome = await runCommand(["--hostname", "127.0.0.1", ...args], { permissions: allowed });
      assertEquals(outcome, { code, stdout: "", stderr: `shouty: ${message}\n` });
      await assertRejects(() => Deno.lstat(unix), Deno.errors.NotFound);
    };
    const used = `cannot listen on 127.0.0.1:${port}: address already in use`;
    const tls = ["--tls-cert", cert, "--tls-port"];
    await says(["--port", "0", ...tls, `${port}`], 1, used);
    await says(["--port", `${port}`, ...tls, "0", "--unix", unix], 1, used);
    const missing = `${cert}.gone`;
    const gone = `cannot read --tls-cert "${missing}": no such file or directory`;
    const every = ["--port", "0", "--tls-port", "0", "--unix", unix];
    await says([...every, "--tls-cert", missing], 1, gone, ["--allow-net", "--allow-read", ...permissions.slice(2)]);
    const net = "no permission to use the network, which --allow-net grants";
    const narrow = ["--allow-net=127.0.0.1:0", ...permissions.slice(1)];
    await says(["--port", "0", ...tls, "8443"], 1, `cannot listen on 127.0.0.1:8443: ${net}`, narrow);
    await says(["--port", "0", "--unix", unix], 1, `cannot listen on unix:${unix}: ${net}`, narrow);
    await says(["--tls-port", "0"], 2, "cannot use --tls-port without --tls-cert: expected both");
    await says(["--port", "7", ...tls, "7"], 2, "cannot use --port 7 with --tls-port 7: expected two ports");
    const epoll = "cannot use --engine epoll with --unix: expected one of them";
    await says(["--engine", "epoll", "--port", "0", "--unix", unix], 2, epoll);
    const unlisted = "cannot use --proxy-protocol unix without --unix: expected both";
    await says(["--port", "0", ...tls, "0", "--proxy-protocol", "unix"], 2, unlisted);
  },
});
