import net from "node:net";
import { assertEquals } from "@std/assert";
import { formatAddr, type Listener, type Transport } from "@x/shouty";
import { listenTls, proxyProtocol } from "@x/shouty/ops";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { test, testOnce } from "../../kit/bounded.ts";
import { listenLoopback, startServer, type TestServer } from "../../kit/server.ts";
import { IDENTITY } from "../../kit/tls.ts";

const LINE = "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n";

/** Listeners that wait for bytes of the peer before they hand a connection on. */
const LISTENERS: Record<string, (listener: Listener, clock?: FakeClock) => Listener | Promise<Listener>> = {
  "PROXY": (listener, clock) => proxyProtocol(listener, { from: "127.0.0.1", clock }),
  "TLS": (listener, clock) => listenTls({ listener, clock, ...IDENTITY }),
};

/** Connects, and leaves at once. */
async function visit(t: TestServer, how: "end" | "destroy" | "resetAndDestroy"): Promise<string> {
  const socket = net.connect(t.port, "127.0.0.1");
  socket.on("error", () => {});
  const connected = Promise.withResolvers<void>();
  socket.on("connect", connected.resolve);
  await connected.promise;
  const addr = `127.0.0.1:${socket.localPort}`;
  socket[how]();
  return addr;
}

for (const [name, wrap] of Object.entries(LISTENERS)) {
  for (const how of ["end", "destroy", "resetAndDestroy"] as const) {
    test(`A client that leaves a ${name} port without a byte, by ${how}, is gone and not rejected`, async () => {
      await using t = startServer({ listener: await wrap(listenLoopback()) });
      const addr = await visit(t, how);
      const { remoteAddr } = await t.until("gone");
      // The kernel no longer knows the address of a connection that is reset before it is accepted.
      if (remoteAddr !== undefined || how !== "resetAndDestroy") assertEquals(formatAddr(remoteAddr!), addr);
      assertEquals([t.stats.gone, t.stats.rejected, t.stats.accepted], [1, 0, 0]);
      assertEquals([t.all("rejected"), t.all("accept-error")], [[], []]);
    });
  }

  testOnce(
    `A transport without an address is gone at a ${name} port, and accepting goes on`,
    async () => {
      for (const error of [new Deno.errors.NotConnected("No address"), new Deno.errors.BadResource("No address")]) {
        const memory = new MemoryListener();
        const clock = new FakeClock();
        let addressless = true;
        const get = () => {
          throw error;
        };
        const accept = async (): Promise<Transport> => {
          const transport = await memory.accept();
          return addressless ? Object.defineProperty(transport, "remoteAddr", { get }) : transport;
        };
        const below = { addr: memory.addr, accept, close: () => memory.close() };
        await using t = startServer({ listener: await wrap(below, clock), clock });
        assertEquals(await memory.connect().readAll(), "");
        await t.until("gone");
        addressless = false;
        memory.connect();
        await clock.advance(60_000);
        await t.until("rejected");
        assertEquals([t.stats.gone, t.stats.rejected, t.all("accept-error")], [1, 1, []]);
      }
    },
  );
}

test("A proxy that sends a TLS port only a PROXY header is gone and not rejected", async () => {
  const listener = await listenTls({ listener: proxyProtocol(listenLoopback(), { from: "127.0.0.1" }), ...IDENTITY });
  await using t = startServer({ listener });
  const client = await t.connect();
  await client.write(LINE);
  await client.closeWrite();
  assertEquals(formatAddr((await t.until("gone")).remoteAddr!), "192.0.2.7:56324");
  assertEquals(t.stats.rejected, 0);
});

test("A client that resets before it is accepted is gone, and accepting has not failed", async () => {
  await using t = startServer();
  // This process is blocked while the client runs.
  const script = `
    import net from "node:net";
    const socket = net.connect(${t.port}, "127.0.0.1", () => socket.resetAndDestroy());`;
  new Deno.Command(Deno.execPath(), { args: ["eval", script] }).outputSync();
  const { remoteAddr } = await t.until("gone");
  assertEquals(remoteAddr, undefined);
  assertEquals([t.stats.gone, t.stats.accepted, t.all("accept-error")], [1, 0, []]);
});

/** Listens in memory; the address of each connection can be read once, as if the peer were gone then. */
function forgetful(memory: MemoryListener): Listener {
  const accept = async (): Promise<Transport> => {
    const transport = await memory.accept();
    const { remoteAddr } = transport;
    let reads = 0;
    const get = () => {
      if (++reads > 1) throw new Deno.errors.NotConnected("No address");
      return remoteAddr;
    };
    return Object.defineProperty(transport, "remoteAddr", { get });
  };
  return { addr: memory.addr, accept, close: () => memory.close() };
}

for (const admit of [undefined, () => Promise.resolve(true), () => Promise.resolve(false)]) {
  testOnce(`A transport whose address is gone later is not counted for good (${admit ?? "no admit"})`, async () => {
    const memory = new MemoryListener();
    const [clock, ends] = [new FakeClock(), admit === undefined || await admit() ? "gone" : "rejected"] as const;
    await using t = startServer({ listener: forgetful(memory), clock, maxConnections: 2, atCapacity: "wait", admit });
    for (let count = 1; count < 6; count++) {
      const client = memory.connect();
      await clock.advance(0);
      assertEquals([t.stats[ends], t.stats.queued, t.stats.accepted], [count, 0, 0]);
      client.close();
    }
  });
}
