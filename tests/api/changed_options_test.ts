import { assertEquals, assertThrows } from "@std/assert";
import { connectPool, type PoolOptions, serve, type ServeOptions, type Server } from "@x/shouty";
import { MemoryListener, TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";

test("options that are changed after serve() do not change the shutdown", async () => {
  const controller = new AbortController();
  const options: ServeOptions = { listener: new MemoryListener(), signal: controller.signal };
  const server = serve(options);
  // As an error of a listener of the signal, a refused option would end the process.
  options.drainTimeout = -1;
  controller.abort();
  await server.finished;
  assertEquals(server.state, "closed");
});

test("one object of options can be changed and used for another server: each calls its own hooks", async () => {
  const calls: string[] = [];
  const start = (options: ServeOptions, name: string): Server => {
    options.listener = new MemoryListener();
    options.onEvent = ({ type }) => calls.push(`${name} ${type}`);
    return serve(options);
  };
  const options: ServeOptions = {};
  const servers = [start(options, "one"), start(options, "two")];
  for (const server of servers) await server.shutdown();
  const told = (name: string) => ["draining", "stopped"].map((type) => `${name} ${type}`);
  assertEquals(calls, ["one listening", "two listening", ...told("one"), ...told("two")]);
});

test("a hook is called as a method of the options", async () => {
  const options = {
    listener: new MemoryListener(),
    count: 0,
    onEvent() {
      this.count++;
    },
  };
  await serve(options).shutdown();
  assertEquals(options.count, 3);
});

test("a list of addresses that is changed after serve() is not read again by setLimits()", async () => {
  const [allow, deny] = [["192.0.2.0/24"], ["192.0.2.1"]];
  await using server = serve({ listener: new MemoryListener(), allow, deny });
  allow.push("nonsense");
  deny.length = 0;
  server.setLimits({ maxConnections: 5 });
  assertEquals([server.limits.allow, server.limits.deny], [["192.0.2.0/24"], ["192.0.2.1"]]);
});

test("a list of addresses that is an empty text lets nobody in by mistake", () => {
  for (const name of ["allow", "deny"]) {
    for (const value of ["", 0, NaN, false]) {
      const options = { listener: new MemoryListener(), [name]: value } as ServeOptions;
      assertThrows(() => serve(options), Error, `Cannot use ${name}`);
    }
  }
});

test("one object of options can be changed and used for another pool: each goes on connecting to its own place", async () => {
  const [here, there] = [new MemoryListener(), new MemoryListener()];
  const options: PoolOptions = { dial: () => here.dial(), minBackoff: 1, maxBackoff: 1 };
  await using _one = connectPool(options, () => {});
  options.dial = () => there.dial();
  options.connectTimeout = -1;
  await using _two = connectPool({ ...options, connectTimeout: 1000 }, () => {});
  for (let i = 0; i < 3; i++) {
    for (const listener of [here, there]) new TestClient(await listener.accept())[Symbol.dispose]();
  }
});
