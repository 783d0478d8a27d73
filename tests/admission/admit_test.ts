import { assertEquals, assertInstanceOf } from "@std/assert";
import type { AdmitInfo, AdmitResult, ServeOptions } from "@x/shouty";
import { turn } from "../../internal/time/event_loop.ts";
import { test, testOnce } from "../kit/bounded.ts";
import { inMemory, startServer, type TestServer } from "../kit/server.ts";

const FAILURE = new Error("The list is not to be had");
const REFUSED = "error: connection refused\n";

/** An `admit` whose decisions the test makes. */
function asking(): {
  admit: NonNullable<ServeOptions["admit"]>;
  asked: AdmitInfo[];
  answer: PromiseWithResolvers<AdmitResult>[];
} {
  const asked: AdmitInfo[] = [];
  const answer: PromiseWithResolvers<AdmitResult>[] = [];
  const admit = (info: AdmitInfo) => {
    asked.push(info);
    const decision = Promise.withResolvers<AdmitResult>();
    answer.push(decision);
    return decision.promise;
  };
  return { admit, asked, answer };
}

for (
  const [how, later] of [["at once", (value: unknown) => value], [
    "later",
    (value: unknown) => turn().then(() => value),
  ]] as const
) {
  const decided = (value: AdmitResult) => () => later(value) as AdmitResult;

  test(`admit that decides ${how} admits with nothing, true or limits, and rejects with false`, async () => {
    for (const admits of [undefined, true]) {
      await using t = startServer({ admit: decided(admits) });
      assertEquals(await t.talk("hello\n"), "HELLO\n");
    }
    {
      await using t = startServer({ admit: decided({ maxLineBytes: 3 }) });
      assertEquals(await t.talk("six\nseven\n"), "SIX\nerror: line longer than 3 bytes\n");
    }
    await using t = startServer({ admit: decided(false) });
    using client = await t.connect();
    assertEquals(await client.readAll(), REFUSED);
    const { reason, remoteAddr, error } = await t.until("rejected");
    assertEquals([reason, remoteAddr, error], ["refused", client.addr, undefined]);
    const { accepted, rejected, hookErrors } = t.stats;
    assertEquals([accepted, rejected, hookErrors], [0, 1, 0]);
  });
}

test("admit may be a function that returns a boolean, or promises one", async () => {
  const allowed = new Set(["127.0.0.1"]);
  const isAllowed = ({ remoteAddr }: AdmitInfo) => allowed.has((remoteAddr as Deno.NetAddr).hostname);
  for (const options of [{ admit: isAllowed }, { admit: async (info: AdmitInfo) => await isAllowed(info) }]) {
    await using t = startServer(options);
    assertEquals(await t.talk("hello\n"), "HELLO\n");
  }
  await using t = startServer({ admit: async () => await false });
  using client = await t.connect();
  assertEquals(await client.readAll(), REFUSED);
});

const FAILING: Readonly<Record<string, () => unknown>> = {
  "throws": () => {
    throw FAILURE;
  },
  "rejects": () => Promise.reject(FAILURE),
  "returns a wrong limit": () => ({ maxLineBytes: 0 }),
  "returns no object": () => Promise.resolve(5),
};

for (const [how, admit] of Object.entries(FAILING)) {
  testOnce(`admit that ${how} rejects the connection, and its error is in the event and counted`, async () => {
    await using t = startServer({ ...inMemory(), admit: admit as () => AdmitResult });
    assertEquals(await (await t.connect()).readAll(), REFUSED);
    const { reason, error } = await t.until("rejected");
    assertEquals([reason, t.stats.hookErrors, t.stats.rejected], ["refused", 1, 1]);
    assertInstanceOf(error, Error);
    if (how.endsWith("s") && !how.includes(" ")) assertEquals(error, FAILURE);
  });
}

test("admit gets both addresses, and what it is asked about later does not wait for its earlier decisions", async () => {
  const { admit, asked, answer } = asking();
  await using t = startServer({ admit });
  const clients = [await t.connect(), await t.connect(), await t.connect()];
  while (asked.length < 3) await turn();
  assertEquals(asked.map(({ remoteAddr }) => remoteAddr), clients.map(({ addr }) => addr));
  assertEquals(asked.map(({ localAddr }) => localAddr), Array(3).fill(t.server.addr));
  await Promise.all(clients.map((client, i) => client.write(`${i}\n`)));
  answer[2].resolve();
  assertEquals(await clients[2].readLine(), "2");
  answer[0].resolve(false);
  assertEquals(await clients[0].readAll().catch(() => REFUSED), REFUSED);
  assertEquals([t.stats.accepted, t.stats.active, t.stats.lines], [1, 1, 1]);
  answer[1].resolve({});
  assertEquals(await clients[1].readLine(), "1");
});

testOnce(
  "a decision that takes longer than admitTimeout rejects the connection, and what it says later does nothing",
  async () => {
    const { listener, clock } = inMemory();
    const { admit, answer } = asking();
    await using t = startServer({ listener, clock, admit, admitTimeout: 1000 });
    const client = await t.connect();
    await clock.advance(999);
    assertEquals(t.stats.rejected, 0);
    await clock.advance(1);
    assertEquals(await client.readAll(), REFUSED);
    const { reason, error } = await t.until("rejected");
    assertInstanceOf(error, Deno.errors.TimedOut);
    assertEquals([reason, clock.pending], ["refused", 1]);
    answer[0].resolve();
    await clock.advance(5000);
    assertEquals([t.stats.accepted, t.stats.rejected, t.stats.hookErrors], [0, 1, 1]);
  },
);

testOnce("admitTimeout is 5 s, and Infinity waits for ever", async () => {
  for (const admitTimeout of [undefined, Infinity]) {
    const { listener, clock } = inMemory();
    const { admit, answer } = asking();
    await using t = startServer({ listener, clock, admit, admitTimeout });
    const client = await t.connect();
    await clock.advance(4999);
    assertEquals(t.stats.rejected, 0);
    await clock.advance(admitTimeout === undefined ? 1 : 1e9);
    assertEquals(t.stats.rejected, admitTimeout === undefined ? 1 : 0);
    answer[0].resolve();
    if (admitTimeout === Infinity) {
      await client.write("x\n");
      assertEquals(await client.readLine(), "X");
    }
  }
});

for (
  const [limit, reason] of [["maxConnections", "max-connections"], ["maxConnectionsPerIp", "max-connections-per-ip"]]
) {
  testOnce(`a connection that admit decides about counts in ${limit}, and no longer once it is refused`, async () => {
    const { admit, answer } = asking();
    await using t = startServer({ ...inMemory(), admit, [limit]: 1 });
    const first = await t.connect();
    const second = await t.connect();
    await second.readAll();
    assertEquals((await t.until("rejected")).reason, reason);
    answer[0].resolve(false);
    assertEquals(await first.readAll(), REFUSED);
    const third = await t.connect();
    while (answer.length < 2) await turn();
    answer[1].resolve();
    await third.write("x\n");
    assertEquals(await third.readLine(), "X");
  });
}

testOnce('with atCapacity "wait" the place of a refused connection goes to the next one', async () => {
  const { admit, answer } = asking();
  await using t = startServer({ ...inMemory(), admit, maxConnections: 1, atCapacity: "wait" });
  await t.connect();
  const second = await t.connect();
  await second.write("x\n");
  while (answer.length < 1) await turn();
  answer[0].resolve(false);
  while (answer.length < 2) await turn();
  answer[1].resolve();
  assertEquals(await second.readLine(), "X");
});

test("a shutdown does not wait for a decision: the connection is closed, and is neither accepted nor rejected", async () => {
  const { admit, asked, answer } = asking();
  await using t = startServer({ admit, admitTimeout: Infinity });
  const client = await t.connect();
  while (asked.length === 0) await turn();
  const { closed } = await t.server.shutdown({ drain: "finish" });
  assertEquals(closed, {});
  assertEquals(await client.readAll().catch(() => ""), "");
  answer[0].resolve({});
  await turn();
  assertEquals([t.stats.accepted, t.stats.rejected, t.server.state], [0, 0, "closed"]);
});

test("admit may shut the server down, and is not asked about what the lists refuse", async () => {
  const server: { t?: TestServer } = {};
  let asked = 0;
  const admit = () => (asked++, void server.t!.server.shutdown());
  await using t = server.t = startServer({ admit });
  const client = await t.connect();
  assertEquals(await client.readAll().catch(() => ""), "");
  await t.server.finished;
  assertEquals([asked, t.stats.accepted, t.stats.rejected], [1, 0, 0]);
  await using denying = startServer({ admit: () => void asked++, deny: ["127.0.0.1"] });
  assertEquals(await (await denying.connect()).readAll(), "error: address not allowed\n");
  assertEquals(asked, 1);
});

test("a client that leaves while admit decides ends like any other, and a peer is not read before", async () => {
  const { admit, asked, answer } = asking();
  await using t = startServer({ admit });
  const client = await t.connect();
  while (asked.length === 0) await turn();
  await client.write("hello\n");
  client.close();
  answer[0].resolve();
  const { reason } = await t.closed();
  assertEquals(["end", "reset"].includes(reason), true, reason);
});

testOnce("a connection whose own address cannot be read is closed, and takes no place", async () => {
  const { listener, clock } = inMemory();
  const accept = listener.accept.bind(listener);
  let broken = true;
  listener.accept = async () => {
    const transport = await accept();
    if (!broken) return transport;
    broken = false;
    return Object.defineProperty(transport, "localAddr", {
      get() {
        throw new TypeError("The address is gone");
      },
    });
  };
  await using t = startServer({ listener, clock, maxConnections: 1, admit: () => {} });
  const first = await t.connect();
  await first.readAll().catch(() => {});
  assertInstanceOf((await t.until("accept-error")).error, TypeError);
  assertEquals(await t.talk("served\n"), "SERVED\n");
});
