import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { Transport } from "@x/shouty";
import { type FdListener, listenEpoll, listenFd, proxyProtocol } from "@x/shouty/ops";
import { socketsTurn } from "../../../internal/time/event_loop.ts";
import { test as bounded, within } from "../../kit/bounded.ts";
import { Subprocess } from "../../kit/command.ts";
import { broken, flood, pair, readText } from "../../kit/sockets/epoll_peers.ts";
import {
  boundFd,
  closeFd,
  connectedFd,
  datagramFd,
  inheritFd,
  listeningFd,
  NO_FD,
  unixFd,
} from "../../kit/sockets/fd.ts";
import { assertFreed } from "../../kit/sockets/freed_port.ts";
import { startServer } from "../../kit/server.ts";

function test(name: string, body: () => void | Promise<void>): void {
  bounded(name, body, 60, NO_FD);
}

/** The listeners that can hand their descriptor on. */
const KINDS: Readonly<Record<string, () => FdListener>> = {
  "on Deno's sockets": () => listenFd({ fd: listeningFd() }),
  "on epoll": () => listenFd({ fd: listeningFd(), engine: "epoll" }),
  "of listenEpoll": () => listenEpoll({ hostname: "127.0.0.1", port: 0 }),
};

test("listenFd refuses what is no descriptor of a listening socket, and names what is allowed", () => {
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const open = [datagramFd(), connectedFd(taken.addr.port)];
  const socket = (fd: number) => `Cannot use fd ${fd}: expected a listening socket`;
  const cases: [unknown, string][] = [
    [{ fd: 2 }, "Cannot use fd 2: expected a whole number from 3 to 2147483647"],
    [{ fd: "3" }, 'Cannot use fd "3": expected a number'],
    [{ fd: 3, engine: "uring" }, 'Cannot use engine "uring": expected "deno" or "epoll"'],
    [{ fd: 3, keepAliveMs: 1 }, "Cannot use keepAliveMs 1: expected 1000 to 32767000 ms, or Infinity"],
    [null, "Cannot use listenFd options: expected an object, got null"],
    [{ fd: 999_999 }, socket(999_999)],
    [{ fd: 999_999, engine: "epoll" }, socket(999_999)],
    ...open.map((fd): [unknown, string] => [{ fd, engine: "epoll" }, socket(fd)]),
    ...open.map((fd): [unknown, string] => [{ fd }, socket(fd)]),
  ];
  for (const [options, message] of cases) {
    assertEquals(assertThrows(() => listenFd(options as { fd: number }), Error).message, message);
  }
});

test("on epoll, a socket that does not listen is refused, and left as it was", () => {
  const fd = boundFd();
  assertThrows(() => listenFd({ fd, engine: "epoll" }), TypeError, `Cannot use fd ${fd}: expected a listening socket`);
  closeFd(fd);
});

for (const [kind, listen] of Object.entries(KINDS)) {
  test(`a listener ${kind} gives the addresses, and its descriptor until it is closed`, async () => {
    const listener = listen();
    const [client, transport] = await pair(listener);
    assertEquals([transport.remoteAddr, transport.localAddr], [client.addr, listener.addr]);
    assertEquals(listener.fd > 2, true);
    transport.close();
    client.close();
    await listener.close();
    assertThrows(() => listener.fd, Deno.errors.BadResource, "The listener is closed");
    await assertRejects(() => listener.accept(), Deno.errors.BadResource, "The listener is closed");
    assertThrows(() => listener.close(), Deno.errors.BadResource, "The listener is closed");
  });

  test(`a released listener ${kind} leaves an outstanding accept alone, and frees the port`, async () => {
    const listener = listen();
    const { port } = listener.addr as Deno.NetAddr;
    const accepting = listener.accept();
    let settled = false;
    accepting.catch(() => settled = true);
    await listener.release();
    await listener.release();
    await assertFreed(port);
    assertEquals(settled, false);
    await assertRejects(() => listener.accept(), Deno.errors.Busy);
    await listener.close();
    await assertRejects(() => accepting, Deno.errors.BadResource, "The listener was closed");
  });

  test(`an accept that begins after the release of a listener ${kind} waits until it is closed`, async () => {
    const listener = listen();
    await listener.release();
    let settled = false;
    const accepting = assertRejects(() => listener.accept(), Deno.errors.BadResource).finally(() => settled = true);
    await socketsTurn();
    assertEquals(settled, false);
    await listener.close();
    await accepting;
  });

  test(`a connection that a wrapper prepares when a listener ${kind} is released is served`, async () => {
    const inner = listen();
    const listener = proxyProtocol(inner, { from: ["127.0.0.1"] });
    await using t = startServer({ listener });
    using client = await t.connect();
    await client.write("PROXY TCP4 192.0.2.1 ");
    await until(() => listener.queued === 1);
    await inner.release();
    await client.write("192.0.2.2 1 2\r\nhello\n");
    assertEquals(await client.readLine(), "HELLO");
  });

  test(`a child process goes on with the socket of a listener ${kind}, and clients are served by either`, async () => {
    const listener = listen();
    const { port } = listener.addr as Deno.NetAddr;
    // A descriptor that comes from a parent process is inherited as it is.
    if (kind === "on Deno's sockets") inheritFd(listener.fd);
    listener.inherit(true);
    const args = ["run", "--allow-net", "mod.ts", "--listen-fd", `${listener.fd}`];
    await using child = new Subprocess(Deno.execPath(), args, {});
    listener.inherit(false);
    await child.stderrMatch(/listening on/);
    await listener.release();
    using conn = await Deno.connect({ port });
    await conn.write(new TextEncoder().encode("hello\n"));
    await conn.closeWrite();
    assertEquals(await within(60, new Response(conn.readable).text()), "HELLO\n");
    await listener.close();
    child.signal("SIGTERM");
    assertEquals((await child.outcome()).code, 0);
  });
}

test("on Deno's sockets, connections wait unread until they are accepted, and those beyond 511 are reset", async () => {
  const listener = listenFd({ fd: listeningFd() });
  const { port } = listener.addr as Deno.NetAddr;
  const clients = [];
  for (let i = 0; i < 511; i++) clients.push(await Deno.connect({ port }));
  await until(() => listener.queued === 511);
  await assertRejects(async () => {
    using late = await Deno.connect({ port });
    await late.read(new Uint8Array(1));
  }, Deno.errors.ConnectionReset);
  await clients[0].write(new TextEncoder().encode("first"));
  for (let turns = 3; turns > 0; turns--) await socketsTurn();
  assertEquals(inKernel(listener, clients[0].localAddr), { established: true, unread: 5 });
  const first = await listener.accept();
  assertEquals(await readText(first), "first");
  first.close();
  listener.close();
  for (const client of clients) client.close();
});

test("on Deno's sockets, a close while a write waits ends the connection, although the peer reads nothing", async () => {
  const listener = listenFd({ fd: listeningFd() });
  const [client, transport] = await pair(listener);
  const { over } = await flood(transport);
  transport.close();
  await assertRejects(() => over, Deno.errors.Interrupted);
  await until(() => !inKernel(listener, client.addr)?.established);
  client.close();
  listener.close();
});

test("on Deno's sockets, connections on a Unix socket beyond the 511 that wait are closed, and the rest served", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/socket`;
  const listener = listenFd({ fd: unixFd(path) });
  const clients = [];
  for (let i = 0; i < 511; i++) clients.push(await Deno.connect({ transport: "unix", path }));
  await until(() => listener.queued === 511);
  using late = await Deno.connect({ transport: "unix", path });
  assertEquals(await late.read(new Uint8Array(1)), null);
  await clients[0].write(new TextEncoder().encode("first"));
  const first = await listener.accept();
  assertEquals(await readText(first), "first");
  first.close();
  listener.close();
  for (const client of clients) client.close();
  await Deno.remove(folder, { recursive: true });
});

test("on Deno's sockets, what a peer had sent before it reset is read before the error", async () => {
  const listener = listenFd({ fd: listeningFd() });
  const transport = await broken(listener, async (transport) => void await transport.write(new Uint8Array(1)), "last");
  assertEquals(await readText(transport, 2), "la");
  assertEquals(await readText(transport, 2), "st");
  await assertRejects(() => transport.read(new Uint8Array(1)), Deno.errors.ConnectionReset);
  await assertRejects(() => transport.write(new Uint8Array(1)), Deno.errors.BrokenPipe);
  transport.close();
  listener.close();
});

test("on Deno's sockets, a connection that is closed while input is unread has a clean end for its peer", async () => {
  const listener = listenFd({ fd: listeningFd() });
  for (const bytes of [8, 200_000]) {
    const [client, transport] = await pair(listener);
    await transport.write(new TextEncoder().encode("goodbye"));
    await client.write("x".repeat(bytes));
    await socketsTurn();
    transport.close();
    assertEquals(await client.readAll(), "goodbye");
    client.close();
  }
  listener.close();
});

test("on Deno's sockets, a reset is told once and an end each time, as on those of Deno.listen", async () => {
  const outcome = (result: Promise<unknown>) => result.then(() => "done", (error) => error.name);
  const reads = async (transport: Transport) => {
    const text = () => readText(transport).catch((error) => error.name);
    return [await text(), await text(), await text()];
  };
  const seen = [];
  for (const listener of [listenFd({ fd: listeningFd() }), Deno.listen({ hostname: "127.0.0.1", port: 0 })]) {
    const [client, ended] = await pair(listener);
    await client.closeWrite();
    const [reset, resetAndEnded] = [await broken(listener, async () => {}), await broken(listener, async () => {})];
    const end = await outcome(resetAndEnded.closeWrite());
    seen.push({ ended: await reads(ended), reset: await reads(reset), end, then: await reads(resetAndEnded) });
    for (const each of [client, ended, reset, resetAndEnded, listener]) each.close();
  }
  assertEquals(seen[0], seen[1]);
});

test("on Deno's sockets, a read after a write that has failed is no clean end", async () => {
  const listener = listenFd({ fd: listeningFd() });
  const transport = await broken(listener, async () => {}, "lost");
  await assertRejects(() => transport.write(new Uint8Array(1)), Deno.errors.BrokenPipe);
  // The socket reports the error once more, in a later turn than the write.
  await socketsTurn();
  await assertRejects(() => readText(transport), Deno.errors.BrokenPipe);
  transport.close();
  listener.close();
});

test("on Deno's sockets, one read and one write may be outstanding, and a close ends both", async () => {
  const listener = listenFd({ fd: listeningFd() });
  const [client, transport] = await pair(listener);
  const reading = transport.read(new Uint8Array(1));
  await assertRejects(() => transport.read(new Uint8Array(1)), Deno.errors.Busy, "another read is outstanding");
  const many = new Uint8Array(1 << 20);
  const writing = transport.write(many);
  await assertRejects(() => transport.write(many), Deno.errors.Busy, "another write is outstanding");
  transport.close();
  await assertRejects(() => reading, Deno.errors.Interrupted);
  await assertRejects(() => writing, Deno.errors.Interrupted);
  await assertRejects(() => transport.read(many), Deno.errors.BadResource);
  assertThrows(() => transport.close(), Deno.errors.BadResource);
  client.close();
  listener.close();
});

/** What the kernel says of a listener's end of a connection, before and after the process has it. */
function inKernel({ addr }: FdListener, client: Deno.Addr): { established: boolean; unread: number } | undefined {
  const hex = (addr: Deno.Addr) => (addr as Deno.NetAddr).port.toString(16).toUpperCase().padStart(4, "0");
  const table = Deno.readTextFileSync("/proc/net/tcp");
  const row = new RegExp(`:${hex(addr)} 0100007F:${hex(client)} (\\w\\w) \\w+:(\\w+)`).exec(table);
  return row === null ? undefined : { established: row[1] === "01", unread: parseInt(row[2], 16) };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}
