import { assertEquals } from "@std/assert";
import type { Transport } from "@x/shouty";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { Rejects } from "../../internal/admission/rejects.ts";
import type { Framing } from "../../internal/api/framing.ts";
import { resolveFraming } from "../../internal/api/framing.ts";
import { test } from "../kit/bounded.ts";

/** Rejects clients, and notes whose transports it has closed, and for which reasons it has asked for words. */
function rejecting(framing: Partial<Framing> = {}, words = "no") {
  const memory = new MemoryListener();
  const clock = new FakeClock();
  const [closed, asked, kept]: [number[], string[], boolean[]] = [[], [], []];
  const setTimer = (callback: () => void, delay: number, keepAlive: boolean) => {
    kept.push(keepAlive);
    return clock.setTimer(callback, delay);
  };
  const lastWords = (reason: string) => {
    asked.push(reason);
    return words;
  };
  const rejects = new Rejects({ now: () => clock.now(), setTimer }, resolveFraming(framing), { lastWords });
  let count = 0;
  const reject = async (
    reason: "max-connections" | "penalty" | "accept-rate-per-ip",
    change: (transport: Transport) => void = () => {},
  ) => {
    const client = memory.connect();
    const transport = await memory.accept();
    change(transport);
    const close = transport.close.bind(transport);
    const index = count++;
    transport.close = () => {
      closed.push(index);
      close();
    };
    rejects.add(transport, reason);
    return client;
  };
  return { rejects, clock, reject, closed, asked, kept };
}

test("A storm of connections is closed at once, without a line, and without a call for its words", async () => {
  const { reject, clock, closed, asked } = rejecting();
  for (const reason of ["penalty", "accept-rate-per-ip"] as const) {
    using client = await reject(reason);
    assertEquals(await client.readAll(), "");
  }
  assertEquals([closed, asked, clock.pending], [[0, 1], [], 0]);
});

test("A rejected connection is closed when its peer has left, which makes room for another error line", async () => {
  const { rejects, reject, clock, closed, kept } = rejecting();
  const clients = [];
  for (let i = 0; i < 100; i++) clients.push(await reject("max-connections"));
  for (const client of clients) assertEquals(await client.readAll(), "no\n");
  using late = await reject("max-connections");
  assertEquals([await late.readAll(), closed], ["", [100]], "Too many are being closed");
  await clients[0].closeWrite();
  await clock.advance(0);
  assertEquals(closed, [100, 0]);
  using next = await reject("max-connections");
  assertEquals(await next.readAll(), "no\n");
  assertEquals([kept.length, kept.includes(true)], [101, false], "The server alone keeps the process alive");
  rejects.close();
  assertEquals(closed.length, 102);
  await clock.advance(0);
  assertEquals(clock.pending, 0);
  for (const client of clients) client.close();
});

test("A rejected connection whose peer stays is closed after two seconds", async () => {
  const { reject, clock, closed } = rejecting();
  using client = await reject("max-connections");
  assertEquals(await client.readAll(), "no\n");
  await clock.advance(1999);
  assertEquals(closed, []);
  await clock.advance(1);
  assertEquals([closed, clock.pending], [[0], 0]);
});

test("Characters that the encoding does not have are question marks in what a rejected peer is told", async () => {
  const { rejects, reject } = rejecting({ encoding: "latin1" }, "no 10 €");
  using client = await reject("max-connections");
  assertEquals(await client.readAll(), "no 10 ?\n");
  rejects.close();
});

test("What a rejected peer is told may be written in parts, and a transport that takes nothing is asked once", async () => {
  const { rejects, reject } = rejecting();
  let writes = 0;
  using slow = await reject("max-connections", (transport) => {
    const write = transport.write.bind(transport);
    transport.write = (bytes) => (writes++, write(bytes.subarray(0, 1)));
  });
  assertEquals([await slow.readAll(), writes], ["no\n", 3]);
  using stuck = await reject("max-connections", (transport) => {
    transport.write = () => writes++ < 10 ? Promise.resolve(0) : Promise.reject(new Error("asked again"));
  });
  assertEquals([await stuck.readAll(), writes], ["", 4]);
  rejects.close();
});
