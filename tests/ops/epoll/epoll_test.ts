import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { serve } from "@x/shouty";
import { listenEpoll } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { socketsTurn } from "../../../internal/time/event_loop.ts";
import { errorOf } from "../../../ops/epoll/errno.ts";
import {
  broken,
  descriptors,
  disposable,
  flood,
  LOOPBACK,
  pair,
  RawPeer,
  readText,
  test,
} from "../../kit/sockets/epoll_peers.ts";
import { NO_IPV6 } from "../../kit/sockets/ipv6.ts";

const { AddrInUse, AddrNotAvailable, BadResource, BrokenPipe, Busy, ConnectionReset, Interrupted } = Deno.errors;

for (const hostname of ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:0.0.0.0"]) {
  test(`a listener on epoll gives the addresses that Deno's gives, at ${hostname}`, async () => {
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
  }, hostname.includes(":") ? NO_IPV6 : "");
}

test("a listener on epoll refuses a hostname that is no IP address, and a wrong port, and names what is allowed", () => {
  const cases: [unknown, string][] = [
    [{ hostname: "localhost" }, 'Cannot use hostname "localhost": expected an IP address without a zone'],
    [{ hostname: "fe80::1%lo" }, 'Cannot use hostname "fe80::1%lo": expected an IP address without a zone'],
    [{ hostname: "127.0.0.1\0" }, 'Cannot use hostname "127.0.0.1\\u0000": expected an IP address without a zone'],
    [{ hostname: "" }, 'Cannot use hostname "": expected an IP address without a zone'],
    [{ hostname: 1 }, "Cannot use hostname: expected a string, got 1"],
    [{ port: 65_536 }, "Cannot use port 65536: expected a whole number from 0 to 65535"],
    ...[999, 32_767_001, 0, NaN].map((keepAliveMs): [unknown, string] => [
      { keepAliveMs },
      `Cannot use keepAliveMs ${keepAliveMs}: expected 1000 to 32767000 ms, or Infinity`,
    ]),
    [{ keepAliveMs: "15000" }, 'Cannot use keepAliveMs "15000": expected a number'],
    [null, "Cannot use listenEpoll options: expected an object, got null"],
  ];
  for (const [options, message] of cases) {
    assertEquals(assertThrows(() => listenEpoll(options as { port: number }), Error).message, message);
  }
});

test("an address that cannot be had is an error of Deno's kind", () => {
  using taken = Deno.listen(LOOPBACK);
  const inUse = assertThrows(() => listenEpoll({ ...LOOPBACK, port: taken.addr.port }), AddrInUse);
  assertEquals(inUse.message, assertThrows(() => serve(taken.addr), AddrInUse).message);
  assertThrows(() => listenEpoll({ hostname: "192.0.2.1", port: 0 }), AddrNotAvailable);
});

test("a port is free as soon as its listener on epoll is closed", async () => {
  const listener = listenEpoll(LOOPBACK);
  const { port } = listener.addr as Deno.NetAddr;
  const [client, transport] = await pair(listener);
  transport.close();
  assertEquals(await client.readAll(), "");
  client.close();
  listener.close();
  listenEpoll({ ...LOOPBACK, port }).close();
  Deno.listen({ ...LOOPBACK, port }).close();
  for (let i = 0; i < 50; i++) {
    const next = listenEpoll({ ...LOOPBACK, port });
    const ends = await pair(next);
    for (const end of [...ends, next]) end.close();
  }
});

test("closing ends what is outstanding, and what is tried after it", async () => {
  const listener = listenEpoll(LOOPBACK);
  const [client, transport] = await pair(listener);
  const accepting = assertRejects(() => listener.accept(), BadResource);
  await assertRejects(() => listener.accept(), Busy);
  const reading = assertRejects(() => readText(transport), Interrupted);
  const { over } = await flood(transport);
  const writing = assertRejects(() => over, Interrupted);
  for (const end of [transport, listener]) end.close();
  await Promise.all([accepting, reading, writing]);
  await assertRejects(() => listener.accept(), BadResource);
  await assertRejects(() => readText(transport), BadResource);
  await assertRejects(() => transport.write(new Uint8Array(1)), BadResource);
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

test("input that is not read does not make the end a reset, however much it is, nor if the peer has ended", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  for (const [bytes, ended] of [[8, false], [8, true], [200_000, false]] as const) {
    const [client, transport] = await pair(listener);
    await transport.write(new TextEncoder().encode("goodbye"));
    await client.write("x".repeat(bytes));
    if (ended) await client.closeWrite();
    await socketsTurn();
    transport.close();
    assertEquals(await client.readAll(), "goodbye");
    client.close();
  }
});

test("a peer that breaks off is an error once, whatever is under way, and closing is in order after it", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  const idle = await broken(listener, async () => {});
  await assertRejects(() => readText(idle), ConnectionReset);
  assertEquals(await readText(idle), null);
  await assertRejects(() => idle.write(new Uint8Array(1)), BrokenPipe);
  await idle.closeWrite();
  let reading: Promise<unknown>;
  const read = await broken(listener, async (transport) => {
    reading = assertRejects(() => readText(transport), ConnectionReset);
    await assertRejects(() => readText(transport), Busy);
  });
  await reading!;
  let writing: Promise<unknown>;
  const written = await broken(listener, async (transport) => {
    const { over } = await flood(transport);
    writing = assertRejects(() => over, ConnectionReset);
    await assertRejects(() => transport.write(new Uint8Array(1)), Busy);
  });
  await writing!;
  for (const transport of [idle, read, written]) transport.close();
});

test("a read into nothing is no end", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  const [client, transport] = await pair(listener);
  await client.write("hello");
  assertEquals(await readText(transport, 1), "h");
  assertEquals(await readText(transport, 0), "");
  assertEquals(await readText(transport), "ello");
  for (const end of [client, transport]) end.close();
});

test("nothing that it opens is there for processes that this one starts", async () => {
  const before = new Set(descriptors());
  const listener = listenEpoll(LOOPBACK);
  const [client, transport] = await pair(listener);
  const opened = descriptors().filter((fd) => !before.has(fd));
  const flags = opened.map((fd) => /flags:\s*(\d+)/.exec(readOr("", `/proc/self/fdinfo/${fd}`))?.[1] ?? "02000000");
  assertEquals(flags.map((octal) => (parseInt(octal, 8) & 0o2000000) !== 0), flags.map(() => true));
  for (const end of [client, transport, listener]) end.close();
});

function readOr(text: string, path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return text; // It was the descriptor with which the folder was read.
  }
}

test("errors of the system are of Deno's classes, and have its codes", () => {
  const cases = {
    13: "PermissionDenied",
    24: "Error",
    98: "AddrInUse",
    99: "AddrNotAvailable",
    103: "ConnectionAborted",
  };
  for (const [errno, name] of Object.entries({ ...cases, 104: "ConnectionReset", 32: "BrokenPipe", 110: "TimedOut" })) {
    const error = errorOf(-Number(errno));
    assertEquals([error.name, error.message.endsWith(` (os error ${errno})`)], [name, true]);
  }
  assertEquals((errorOf(-24) as Error & { code: string }).code, "EMFILE");
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
      // Half of the connections close while a line is unread or unanswered.
      if (Math.random() < 0.5) await client.write("bye\n");
    }
  });
  await Promise.all(visitors);
});

test("what comes behind an urgent byte, as a telnet sends it at Ctrl-C, is read without waiting for more, in its turn", async () => {
  using listener = disposable(listenEpoll(LOOPBACK));
  const peer = new RawPeer((listener.addr as Deno.NetAddr).port);
  const transport = await listener.accept();
  peer.send("one");
  peer.send("!", RawPeer.MSG_OOB);
  peer.send("two");
  await socketsTurn();
  assertEquals(await readText(transport), "one");
  assertEquals(await readText(transport), "two");
  // The read behind the urgent byte waits for the next turn.
  peer.send("three");
  peer.send("!", RawPeer.MSG_OOB);
  await socketsTurn();
  assertEquals(await readText(transport), "three");
  peer.send("four");
  let came = false;
  const reading = readText(transport).finally(() => came = true);
  for (let steps = 0; steps < 10; steps++) await undefined;
  assertEquals(came, false);
  assertEquals(await reading, "four");
  peer.close();
  transport.close();
});
