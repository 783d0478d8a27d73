import { createConnection, type Socket } from "node:net";
import { assertEquals, assertGreater, assertLess } from "@std/assert";
import { FakeClock } from "@x/shouty/testing";
import { ClientRates } from "../../internal/admission/client_rates.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory, startServer } from "../kit/server.ts";

/** Many clients with one local address; Deno.connect cannot choose it, `node:net` can. */
class Storm implements AsyncDisposable {
  readonly #sockets: Socket[];
  #text = "";
  #ended = 0;
  #news = Promise.withResolvers<void>();

  private constructor(sockets: Socket[]) {
    this.#sockets = sockets;
    for (const socket of sockets) {
      socket.on("data", (bytes) => this.#text += bytes);
      socket.on("close", () => {
        this.#ended++;
        this.#news.resolve();
        this.#news = Promise.withResolvers();
      });
      socket.on("error", () => {});
    }
  }

  /** Opens `count` connections, and waits until the kernel has them. */
  static async from(localAddress: string, port: number, count: number): Promise<Storm> {
    const sockets = Array.from({ length: count }, () => createConnection({ host: "127.0.0.1", port, localAddress }));
    const storm = new Storm(sockets);
    await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.on("connect", resolve))));
    return storm;
  }

  /** Waits until `ended` sockets are closed; all that the sockets have received by then. */
  async received(ended: number): Promise<string> {
    while (this.#ended < ended) await this.#news.promise;
    return this.#text;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await this.received(this.#sockets.length);
  }
}

testOnce("ClientRates keeps only the clients that have connected within the last second", () => {
  const rates = new ClientRates(2);
  for (let i = 0; i < 10_000; i++) {
    rates.take(`client ${i}`, i);
    // Both connections of the burst are used up, so the rate is unused again after one second.
    rates.take(`client ${i}`, i);
  }
  assertGreater(rates.size, 500);
  assertLess(rates.size, 1002);
  assertEquals([rates.take("client 9999", 9999), rates.take("client 0", 9999)], [false, true]);
  rates.take("late", 60_000);
  assertEquals(rates.size, 1);
});

testOnce("ClientRates forgets the clients that have connected least recently beyond 100 000", () => {
  const rates = new ClientRates(0.1);
  for (let i = 0; i < 100_000; i++) assertEquals(rates.take(`client ${i}`, 0), true);
  assertEquals(rates.take("client 1", 0), false);
  assertEquals(rates.take("one more", 0), true);
  assertEquals([rates.size, rates.take("client 9", 0)], [100_000, false]);
});

testOnce("ClientRates forgets the others while a client keeps connecting at its full rate", () => {
  const rates = new ClientRates(2);
  rates.take("steady", 0);
  for (let now = 0; now < 100_000; now += 500) {
    assertEquals(rates.take("steady", now), true);
    rates.take(`client ${now}`, now);
  }
  assertLess(rates.size, 5);
});

testOnce("ClientRates admits a client once in four seconds at a rate of a quarter, and keeps it as long", () => {
  const rates = new ClientRates(0.25);
  const taken = [0, 1, 3999, 4000, 4001].map((now) => rates.take("client", now));
  assertEquals(taken, [true, false, false, true, false]);
});

testOnce("serve() accepts no faster than acceptRate", async () => {
  const { listener, clock } = inMemory();
  await using t = startServer({ listener, clock, acceptRate: 2 });
  for (let i = 0; i < 5; i++) await t.connect();
  await clock.advance(0);
  assertEquals(t.stats.accepted, 2);
  await clock.advance(500);
  assertEquals(t.stats.accepted, 3);
  await clock.advance(1000);
  assertEquals(t.stats.accepted, 5);
});

test(
  "A client that opens 200 connections at once keeps no other out with acceptRate and acceptRatePerIp",
  async () => {
    await using t = startServer({ clock: new FakeClock(), acceptRate: 2, acceptRatePerIp: 1, idleTimeout: Infinity });
    await using storm = await Storm.from("127.0.0.9", t.port, 200);
    // The storm connected first, and the kernel keeps that order. The clock stands still: if more than one of the storm
    // had one of the two places of the first second, the other client would wait for ever.
    assertEquals(await t.talk("hello\n"), "HELLO\n");
    const fromStorm = ({ remoteAddr }: { remoteAddr: Deno.Addr }) =>
      (remoteAddr as Deno.NetAddr).hostname === "127.0.0.9";
    const rejected = t.all("rejected").filter(fromStorm);
    const admitted = t.all("accepted").filter(({ conn }) => fromStorm(conn));
    assertEquals([rejected.length, admitted.length], [199, 1]);
    assertEquals(new Set(rejected.map(({ reason, limit }) => `${reason} ${limit}`)), new Set(["accept-rate-per-ip 1"]));
    assertEquals(await storm.received(rejected.length), "", "A client above acceptRatePerIp gets no error line");
  },
  60,
  Deno.build.os === "linux" ? "" : " (skipped: only Linux has all of 127.0.0.0/8)",
);
