import { type AddressInfo, createServer } from "node:net";
import { assertEquals, assertGreater, assertLess, assertMatch, assertRejects } from "@std/assert";
import type { ConnectOptions, ServeOptions, Server, Transport } from "@x/shouty";
import { FakeClock, MemoryListener, TestClient } from "@x/shouty/testing";
import { drain, serveByteProxy } from "../../../examples/byte_proxy.ts";
import { test, testOnce } from "../../kit/bounded.ts";
import { refusingPort } from "../../kit/sockets/refusing_port.ts";
import { listenLoopback, SOCKETS, TestServer } from "../../kit/server.ts";

const MEBIBYTE = 1024 * 1024;

test("byte_proxy passes on what each side sends, whatever the bytes, and each side's end", async () => {
  await using lab = await Lab.overSockets();
  const bytes = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) >> 3);
  await Promise.all([
    lab.client.write(bytes).then(() => lab.client.closeWrite()),
    lab.target.write(bytes).then(() => lab.target.closeWrite()),
    lab.client.readBytes(bytes.length + 1).then((got) => assertEquals(got, bytes)),
    lab.target.readBytes(bytes.length + 1).then((got) => assertEquals(got, bytes)),
  ]);
  const { reason, bytesIn, bytesOut } = await lab.proxy.closed();
  assertEquals([reason, bytesIn, bytesOut], ["end", bytes.length, bytes.length]);
});

test("byte_proxy brings the answer to a client that has ended its side", async () => {
  await using lab = await Lab.overSockets();
  await lab.client.write("question");
  await lab.client.closeWrite();
  assertEquals(await lab.target.readAll(), "question");
  await lab.target.write("ans");
  assertEquals(new TextDecoder().decode(await lab.client.readBytes(3)), "ans");
  await lab.target.write("wer");
  await lab.target.closeWrite();
  assertEquals(await lab.client.readAll(), "wer");
  assertEquals((await lab.proxy.closed()).reason, "end");
});

test("byte_proxy brings the rest from a client to a target that has ended its side", async () => {
  await using lab = await Lab.overSockets();
  await lab.target.write("enough");
  await lab.target.closeWrite();
  assertEquals(await lab.client.readAll(), "enough");
  await lab.client.write("one more thing");
  await lab.client.closeWrite();
  assertEquals(await lab.target.readAll(), "one more thing");
  assertEquals((await lab.proxy.closed()).reason, "end");
});

test("byte_proxy closes a client whose target cannot be reached, and says why", async () => {
  using refusing = await refusingPort();
  await using proxy = new TestServer((options) => serveByteProxy({ port: refusing.port }, options), {});
  assertEquals(await proxy.talk("question"), "");
  const { reason, detail } = await proxy.closed();
  assertEquals(reason, "closed");
  assertMatch(detail!, new RegExp(`^ConnectionRefused: Cannot connect to 127\\.0\\.0\\.1:${refusing.port}: `));
});

test("byte_proxy breaks a client's connection off when the target breaks off", async () => {
  // `Deno.Conn.close()` would end the connection before it resets it.
  const target = createServer((socket) => {
    socket.write("half an ans");
    socket.once("data", () => socket.resetAndDestroy());
  });
  await new Promise<void>((resolve) => target.listen(0, "127.0.0.1", resolve));
  const { port } = target.address() as AddressInfo;
  await using proxy = new TestServer((options) => serveByteProxy({ port }, options), {});
  const client = await proxy.connect();
  assertEquals(await client.readBytes(11), new TextEncoder().encode("half an ans"));
  await client.write("go");
  const { reason, error } = await proxy.closed();
  assertEquals([reason, (error as Error).message], ["closed", "target: reset"]);
  // Deno's own sockets cannot be reset.
  if (SOCKETS.listen === undefined) assertEquals(await client.readAll(), "");
  else await assertRejects(() => client.readAll(), Deno.errors.ConnectionReset);
  await new Promise((resolve) => target.close(resolve));
});

/** What both sides have done before one of them breaks off. */
const BEFORE: Record<string, (lab: Lab) => Promise<void>> = {
  "nothing": async () => {},
  "both have sent something": async (lab) => {
    await lab.client.write("half a quest");
    await lab.target.write("half an ans");
    assertEquals((await lab.target.readBytes(12)).length, 12);
    assertEquals((await lab.client.readBytes(11)).length, 11);
  },
  "the client has ended its side": async (lab) => {
    await lab.client.closeWrite();
    assertEquals(await lab.target.readAll(), "");
  },
  "the target has ended its side": async (lab) => {
    await lab.target.closeWrite();
    assertEquals(await lab.client.readAll(), "");
  },
  "the client reads nothing": async (lab) => void await lab.pour(lab.target),
  "the target reads nothing": async (lab) => void await lab.pour(lab.client),
};

for (const [state, prepare] of Object.entries(BEFORE)) {
  for (const side of ["client", "target"] as const) {
    testOnce(`byte_proxy resets the other side when the ${side} breaks off; before that, ${state}`, async () => {
      await using lab = await Lab.inMemory();
      await prepare(lab);
      lab[side].reset();
      const other = lab[side === "client" ? "target" : "client"];
      // A side that waits for nothing meets the reset of its peer at the next write, or when the server reads ahead.
      const write = state === `the ${side} has ended its side` ? other.write("more").catch(() => {}) : undefined;
      await lab.clock.advance(250);
      await write;
      await assertRejects(() => other.readAll(), Deno.errors.ConnectionReset);
      const { reason } = await lab.proxy.closed();
      assertEquals(reason, side === "client" ? "reset" : "closed");
    });
  }
}

testOnce("byte_proxy gives up connecting when the client breaks off", async () => {
  const clock = new FakeClock();
  const listener = new MemoryListener();
  const opening = Promise.withResolvers<Transport>();
  await using proxy = new TestServer(
    (options) => serveByteProxy({ dial: () => opening.promise, clock, connectTimeout: Infinity }, options),
    { listener, clock },
  );
  const client = await proxy.admitted();
  client.reset();
  await clock.advance(250);
  assertEquals((await proxy.closed()).reason, "reset");
  assertEquals(proxy.stats.handlers, 0);
  // What is open after that is closed at once.
  const targets = new MemoryListener();
  const target = targets.connect();
  opening.resolve(await targets.accept());
  assertEquals(await target.readAll(), "");
});

testOnce("byte_proxy lets both sides be silent for a day", async () => {
  await using lab = await Lab.inMemory();
  await lab.clock.advance(86_400_000);
  await lab.client.write("still");
  await lab.target.write("here");
  assertEquals((await lab.target.readBytes(5)).length, 5);
  assertEquals((await lab.client.readBytes(4)).length, 4);
});

for (const side of ["client", "target"] as const) {
  testOnce(`byte_proxy waits an hour for the other side when the ${side} has ended its own`, async () => {
    await using lab = await Lab.inMemory();
    const other = lab[side === "client" ? "target" : "client"];
    await lab[side].closeWrite();
    assertEquals(await other.readAll(), "");
    await lab.clock.advance(3_599_000);
    await other.write("sorry");
    assertEquals((await lab[side].readBytes(5)).length, 5);
    await lab.clock.advance(3_599_000);
    assertEquals(lab.proxy.stats.active, 1);
    await lab.clock.advance(1000);
    await assertRejects(() => lab[side].readAll(), Deno.errors.ConnectionReset);
    other.close();
    await lab.clock.advance(2000);
    assertEquals((await lab.proxy.closed()).reason, side === "client" ? "closed" : "idle");
  });
}

testOnce("byte_proxy takes no more from one side than the other does", async () => {
  for (const side of ["client", "target"] as const) {
    await using lab = await Lab.inMemory();
    const sent = await lab.pour(lab[side]);
    assertLess(sent, MEBIBYTE);
    assertGreater(sent, 0);
  }
});

testOnce("byte_proxy aborts a client that takes nothing for an hour, and the target", async () => {
  await using lab = await Lab.inMemory();
  await lab.pour(lab.target);
  await lab.clock.advance(3_600_000);
  assertEquals((await lab.proxy.closed()).reason, "write-timeout");
  await assertRejects(() => lab.target.readAll(), Deno.errors.ConnectionReset);
});

testOnce("byte_proxy lets its clients finish when it is shut down, and resets those that are left", async () => {
  await using lab = await Lab.inMemory();
  const late = await lab.another();
  const stopped = drain(lab.proxy.server as Server, 86_400_000);
  await lab.client.write("last question");
  await lab.client.closeWrite();
  assertEquals(await lab.target.readAll(), "last question");
  await lab.target.write("answer");
  await lab.target.closeWrite();
  assertEquals(await lab.client.readAll(), "answer");
  await late.target.write("half an ans");
  assertEquals((await late.client.readBytes(11)).length, 11);
  drain(lab.proxy.server as Server, 1);
  await stopped;
  await assertRejects(() => late.client.readAll(), Deno.errors.ConnectionReset);
  await assertRejects(() => late.target.readAll(), Deno.errors.ConnectionReset);
  assertEquals(lab.proxy.all("closed").map(({ reason }) => reason), ["end", "closed"]);
});

/** A proxy with one client; the test itself is the target. */
class Lab implements AsyncDisposable {
  /** The number of bytes that `pour` has sent so far. */
  poured = 0;

  private constructor(
    readonly proxy: TestServer,
    readonly client: TestClient,
    readonly target: TestClient,
    readonly clock: FakeClock,
  ) {}

  /** Connects another client in memory. */
  another!: () => Promise<{ client: TestClient; target: TestClient }>;

  static async overSockets(): Promise<Lab> {
    const listener = listenLoopback();
    const { port } = listener.addr as Deno.NetAddr;
    const proxy = Lab.#proxyTo({ port }, {});
    const client = await proxy.connect();
    const target = new TestClient(await listener.accept());
    await listener.close();
    return new Lab(proxy, client, target, new FakeClock());
  }

  /** Both connections are in memory, and hold 4 KiB each way. */
  static async inMemory(): Promise<Lab> {
    const clock = new FakeClock();
    const [clients, targets] = [0, 0].map(() => new MemoryListener({ bufferBytes: 4096 }));
    let dialled = Promise.withResolvers<TestClient>();
    const dial = () => {
      dialled.resolve(targets.connect());
      return targets.accept();
    };
    const proxy = Lab.#proxyTo({ dial, clock }, { listener: clients, clock });
    const another = async () => {
      dialled = Promise.withResolvers();
      const client = await proxy.connect();
      return { client, target: proxy.own(await dialled.promise) };
    };
    const { client, target } = await another();
    return Object.assign(new Lab(proxy, client, target, clock), { another });
  }

  static #proxyTo(target: ConnectOptions, options: ServeOptions): TestServer {
    return new TestServer((rest) => serveByteProxy(target, rest), options);
  }

  /** Sends until the proxy takes no more; returns the number of bytes that it has taken. */
  async pour(from: TestClient): Promise<number> {
    (async () => {
      for (;; this.poured += 1000) await from.write(new Uint8Array(1000));
    })().catch(() => {});
    for (let before = -1; this.poured > before;) {
      before = this.poured;
      await this.clock.advance(100);
    }
    return this.poured;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.target[Symbol.dispose]();
    await this.proxy[Symbol.asyncDispose]();
    await this.clock.advance(10_000);
  }
}
