import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type Listener, serve, type Transport } from "@x/shouty";
import { listenEpoll } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { socketsTurn } from "../internal/turn.ts";
import { test as bounded } from "./bounded.ts";
import { Subprocess } from "./command.ts";
import { NO_EPOLL } from "./epoll.ts";

const { AddrInUse, AddrNotAvailable, BadResource, Busy, Interrupted } = Deno.errors;
const LOOPBACK = { hostname: "127.0.0.1", port: 0 };

function test(name: string, body: () => void | Promise<void>): void {
  if (NO_EPOLL) Deno.test({ name: name + NO_EPOLL, ignore: true, fn: () => {} });
  else bounded(name, body);
}

/** Both ends of a connection. */
async function pair(listener: Listener): Promise<[TestClient, Transport]> {
  const { port, hostname } = listener.addr as Deno.NetAddr;
  const connecting = Deno.connect({ port, hostname: hostname.replace(/^::$/, "127.0.0.1") });
  const transport = await listener.accept();
  return [new TestClient(await connecting), transport];
}

async function readText(transport: Transport, bytes = 100): Promise<string | null> {
  const buffer = new Uint8Array(bytes);
  const count = await transport.read(buffer);
  return count === null ? null : new TextDecoder().decode(buffer.subarray(0, count));
}

/** What this process has open. */
function descriptors(): string[] {
  return Array.from(Deno.readDirSync("/proc/self/fd"), ({ name }) => name);
}

test("a listener on epoll gives the addresses that Deno's gives", async () => {
  for (const hostname of ["127.0.0.1", "0.0.0.0", "::1", "::"]) {
    const [epoll, deno] = [listenEpoll({ hostname, port: 0 }), Deno.listen({ hostname, port: 0 })];
    const seen = [];
    for (const listener of [epoll, deno]) {
      const [client, transport] = await pair(listener);
      const { port } = client.addr as Deno.NetAddr;
      const addrs = [listener.addr, transport.remoteAddr, transport.localAddr] as Deno.NetAddr[];
      assertEquals([addrs[1].port, addrs[2].port], [port, addrs[0].port]);
      seen.push(addrs.map(({ transport, hostname }) => [transport, hostname]));
      for (const end of [client, transport, listener]) end.close();
    }
    assertEquals(seen[0], seen[1]);
  }
});

test("a listener on epoll refuses what is no IP address or no port, and says which is allowed", () => {
  const cases: [unknown, string][] = [
    [{ hostname: "localhost" }, 'Cannot use hostname "localhost": expected an IP address'],
    [{ hostname: "fe80::1%lo" }, 'Cannot use hostname "fe80::1%lo": expected an IP address'],
    [{ hostname: "127.0.0.1\0" }, 'Cannot use hostname "127.0.0.1\0": expected an IP address'],
    [{ hostname: "" }, 'Cannot use hostname "": expected an address or a host name'],
    [{ port: 65_536 }, "Cannot use port 65536: expected a whole number from 0 to 65535"],
    [null, "Cannot use listenEpoll options: expected an object, got null"],
  ];
  for (const [options, message] of cases) {
    assertEquals(assertThrows(() => listenEpoll(options as { port: number }), Error).message, message);
  }
});

test("an address that cannot be had is an error of Deno's kind", () => {
  using taken = Deno.listen(LOOPBACK);
  const inUse = assertThrows(() => listenEpoll({ ...LOOPBACK, port: taken.addr.port }), AddrInUse);
  assertEquals(inUse.message, assertThrows(() => Deno.listen(taken.addr as Deno.TcpListenOptions), AddrInUse).message);
  assertThrows(() => listenEpoll({ hostname: "192.0.2.1", port: 0 }), AddrNotAvailable);
});

test("a port is free as soon as its listener on epoll is closed, and so are all descriptors", async () => {
  const before = descriptors();
  const listener = listenEpoll(LOOPBACK);
  const { port } = listener.addr as Deno.NetAddr;
  const [client, transport] = await pair(listener);
  transport.close();
  assertEquals(await client.readAll(), "");
  client.close();
  listener.close();
  listenEpoll({ ...LOOPBACK, port }).close();
  Deno.listen({ ...LOOPBACK, port }).close();
  while (descriptors().length > before.length) await socketsTurn();
});

test("closing ends what is outstanding, and what is tried after it", async () => {
  const listener = listenEpoll(LOOPBACK);
  const [client, transport] = await pair(listener);
  const accepting = assertRejects(() => listener.accept(), BadResource);
  await assertRejects(() => listener.accept(), Busy);
  const reading = assertRejects(() => readText(transport), Interrupted);
  const flood = new Uint8Array(32 * 1024 * 1024);
  const left = flood.subarray(await transport.write(flood));
  const writing = assertRejects(() => transport.write(left), Interrupted);
  for (const end of [transport, listener]) end.close();
  await Promise.all([accepting, reading, writing]);
  await assertRejects(() => listener.accept(), BadResource);
  await assertRejects(() => readText(transport), BadResource);
  await assertRejects(() => transport.write(flood), BadResource);
  await assertRejects(() => transport.closeWrite(), BadResource);
  for (const end of [transport, listener]) assertThrows(() => end.close(), BadResource);
  client.close();
});

test("input is read whole and in order, however small the buffer, up to an end that came with it", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  for (const bytes of [1, 2, 7, 1000]) {
    const [client, transport] = await pair(listener);
    const first = readText(transport, bytes);
    const text = "0123456789".repeat(10);
    await client.write(text);
    await client.closeWrite();
    let read = (await first)!;
    for (let part; (part = await readText(transport, bytes)) !== null;) read += part;
    assertEquals(read, text);
    assertEquals(await readText(transport, bytes), null);
    for (const end of [client, transport]) end.close();
  }
});

test("a write that the kernel has no room for goes on when it has", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  const [client, transport] = await pair(listener);
  const reading = client.readAll();
  const bytes = new TextEncoder().encode("0123456789".repeat(2_000_000));
  for (let sent = 0; sent < bytes.length;) sent += await transport.write(bytes.subarray(sent));
  await transport.closeWrite();
  assertEquals(await reading === new TextDecoder().decode(bytes), true);
  for (const end of [client, transport]) end.close();
});

test("input that comes too late does not make the end a reset", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  const [client, transport] = await pair(listener);
  await transport.write(new TextEncoder().encode("goodbye"));
  await client.write("too late");
  transport.close();
  assertEquals(await client.readAll(), "goodbye");
  client.close();
});

test("connections that come and go at random, and their descriptors with them, are never taken for each other", async () => {
  await using server = serve({ listener: listenEpoll(LOOPBACK) });
  const { port } = server.addr as Deno.NetAddr;
  const visitors = Array.from({ length: 20 }, async (_, visitor) => {
    for (let visit = 0; visit < 50; visit++) {
      using client = new TestClient(await Deno.connect({ port }));
      const exchanges = Math.floor(4 * Math.random());
      for (let i = 0; i < exchanges; i++) {
        await client.write(`visitor ${visitor}, visit ${visit}, ${i}\n`);
        assertEquals(await client.readLine(), `VISITOR ${visitor}, VISIT ${visit}, ${i}`);
      }
      // Half of them leave something unread and unanswered behind.
      if (Math.random() < 0.5) await client.write("bye\n");
    }
  });
  await Promise.all(visitors);
});

const SCRIPT = `
  import { listenEpoll } from ${JSON.stringify(new URL("../ops/mod.ts", import.meta.url))};
  const listener = listenEpoll({ hostname: "127.0.0.1", port: 0 });
  Deno.permissions.revokeSync({ name: "ffi" });
  const second = listenEpoll({ hostname: "127.0.0.1", port: 0 });
  console.log("port", listener.addr.port);
  const conn = await listener.accept();
  listener.close(), second.close();
  const buffer = new Uint8Array(10);
  while (await conn.read(buffer) !== null) await conn.write(buffer);
  conn.close();
`;

async function runScript(script: string, ...permissions: string[]): Promise<Subprocess> {
  const config = new URL("../deno.json", import.meta.url).pathname;
  const path = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(path, script);
  return new Subprocess(Deno.execPath(), ["run", "--no-prompt", "--config", config, ...permissions, path]);
}

test("epoll keeps a process alive as long as one of its sockets is open, and outlives the permission for it", async () => {
  await using process = await runScript(SCRIPT, "--allow-ffi");
  const [, port] = await process.stdoutMatch(/port (\d+)/);
  using client = new TestClient(await Deno.connect({ port: Number(port) }));
  await client.write("0123456789");
  assertEquals((await client.read())?.length, 10);
  await client.closeWrite();
  assertEquals((await process.outcome()).code, 0);
});

test("the example of listenEpoll shouts, but for its port as it stands", async () => {
  const source = await Deno.readTextFile(new URL("../ops/epoll.ts", import.meta.url));
  const [, example] = /^ \* ```ts ignore\n(.*?)^ \* ```$/ms.exec(source)!;
  const script = example.replaceAll(/^ \* ?/gm, "").replace("8080", "0");
  await using process = await runScript(`${script}console.log("port", listener.addr.port);`, "--allow-ffi");
  const [, port] = await process.stdoutMatch(/port (\d+)/);
  using client = new TestClient(await Deno.connect({ port: Number(port) }));
  await client.write("hello\n");
  assertEquals(await client.readLine(), "HELLO");
});

test("without permission for foreign code, there is an error that names it", async () => {
  await using process = await runScript(SCRIPT, "--allow-net");
  const { code, stderr } = await process.outcome();
  assertEquals([code, /NotCapable: Requires ffi access to "libc.so.6"/.test(stderr)], [1, true]);
});

function disposable(listener: Listener): Listener & Disposable {
  return Object.assign(listener, { [Symbol.dispose]: () => void listener.close() });
}
