import { assertEquals, assertStrictEquals } from "@std/assert";
import { shout } from "@x/shouty";
import { ServerMetrics } from "@x/shouty/ops";
import { test, testOnce } from "../../kit/bounded.ts";
import { inMemory, startConversations, startServer } from "../../kit/server.ts";

/** Times calls on a clock that each call moves by as many milliseconds as its line says. */
function timing() {
  let ms = 0;
  const metrics = new ServerMetrics({ clock: { now: () => ms } });
  const spend = (line: string) => {
    ms += Number(line);
    if (Number(line) === 13) throw new TypeError("13 is bad luck");
  };
  const times = () => {
    const { series } = metrics.read().find(({ instrument }) => instrument.name === "shouty.handler.duration")!;
    const count = (buckets: number[]) => buckets.reduce((sum, count) => sum + count, 0);
    return series.map(({ attributes, value, buckets }) => [attributes?.["error.type"] ?? "", count(buckets), value]);
  };
  return { metrics, spend, times };
}

testOnce("Handlers are timed: sync, async, blocks, conversations, and also when they throw", async () => {
  const { metrics, spend, times } = timing();
  const reply = (line: string) => (spend(line), line);
  const later = async (line: string) => (await Promise.resolve(), spend(line), line);
  const handlers = {
    sync: metrics.timed(reply),
    async: metrics.timed(later),
    block: metrics.timed(Object.assign(reply, { block: (lines: string) => (spend(lines), lines) })).block,
  };
  const expected = [2000, 3000, 5000].map((ms) => ms / 1000);
  let sum = 0;
  for (const [i, handler] of Object.values(handlers).entries()) {
    assertEquals(await handler(`${1000 * expected[i]}`), `${1000 * expected[i]}`);
    sum += expected[i];
    assertEquals(times()[0], ["", i + 1, sum]);
    const error = await Promise.try(() => handler("13")).catch((error) => error);
    assertEquals(error.message, "13 is bad luck");
    assertEquals(times()[1].slice(0, 2), ["TypeError", i + 1]);
  }
  await using t = startConversations(inMemory(), metrics.timed(async (conn) => spend((await conn.readLine())!)));
  const client = await t.admitted();
  await client.write("7000\n");
  client.close();
  await t.closed();
  assertEquals(times()[0], ["", 4, sum + 7]);
});

testOnce("A handler that throws an error without a name in text is timed, and the error is the caller's", async () => {
  const unreadable = Object.defineProperty(new Error("odd"), "name", {
    get() {
      throw new Error("No name");
    },
  });
  const odd = [Symbol("odd"), 7, undefined].map((name) => Object.assign(new Error("odd"), { name }));
  for (const error of [...odd, unreadable]) {
    const { metrics, times } = timing();
    const sync = metrics.timed(() => {
      throw error;
    });
    const later = metrics.timed(() => Promise.reject(error));
    for (const handler of [sync, later] as (() => unknown)[]) {
      assertStrictEquals(await Promise.try(handler).catch((error) => error), error);
    }
    await undefined;
    assertEquals(times().map(([type, count]) => [type, count]), [["_OTHER", 2]]);
  }
});

testOnce("A clock that fails at the end of an async handler leaves its answer alone", async () => {
  let left = 1;
  const now = () => {
    if (left-- === 0) throw new Error("No time");
    return 0;
  };
  const metrics = new ServerMetrics({ clock: { now } });
  const handler = metrics.timed((line: string) => Promise.resolve(line)) as (line: string) => Promise<string>;
  assertEquals(await handler("fine"), "fine");
});

test("A timed handler answers as the handler does, with each of its ways to answer", async () => {
  const metrics = new ServerMetrics();
  const text = `${"hello, straße\n".repeat(2000)}bye`;
  const methods: string[] = [];
  const watched = Object.assign((line: string) => (methods.push("line"), shout(line)), {
    block: (lines: string) => (methods.push("block"), shout.block(lines)),
  });
  for (
    const handler of [shout, watched, (line: string) => shout(line), (line: string) => Promise.resolve(shout(line))]
  ) {
    const before = metrics.snapshot().handlerMs.count;
    await using t = startServer({}, metrics.timed(handler));
    assertEquals(await t.talk(text), `${shout.block(text)}\n`);
    assertEquals(metrics.snapshot().handlerMs.count > before, true);
  }
  assertEquals(methods.includes("block"), true);
});

testOnce(
  "A block that is not ASCII is one timed call of shout, and a timed block is a method of its handler",
  async () => {
    const metrics = new ServerMetrics();
    await using t = startServer(inMemory(), metrics.timed(shout));
    assertEquals([await t.talk("straße\n"), metrics.snapshot().handlerMs.count], ["STRASSE\n", 1]);
    const handler = Object.assign((line: string) => line, {
      prefix: "> ",
      block(lines: string) {
        return lines.replaceAll(/^(?=.)/gm, this.prefix);
      },
    });
    await using u = startServer(inMemory(), metrics.timed(handler));
    assertEquals(await u.talk("one\ntwo\n"), "> one\n> two\n");
  },
);
