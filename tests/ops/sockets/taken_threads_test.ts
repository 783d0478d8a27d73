import { assertEquals } from "@std/assert";
import { FakeClock, type TestClient } from "@x/shouty/testing";
import { socketsTurn } from "../../../internal/time/event_loop.ts";
import { test } from "../../kit/bounded.ts";
import { listenLoopback, SOCKETS, startServer, type TestServer } from "../../kit/server.ts";
import { TAKE } from "../../kit/sockets/taken_threads.ts";

const CLIENTS = 15;

/** Clients that have had an answer, and from which the server waits for input. */
async function quietClients(t: TestServer): Promise<TestClient[]> {
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => t.admitted()));
  await Promise.all(clients.map((client) => client.write("first\n")));
  for (const client of clients) assertEquals(await client.readLine(), "FIRST");
  return clients;
}

for (const [doing, take] of Object.entries(TAKE)) {
  const missing = Deno.build.os === "windows" && doing === "opening a FIFO" ? " (skipped: Windows has no FIFO)" : "";

  // On epoll, 12 of 15 such lines were lost when one of the shared threads had to wait for the kernel.
  test(
    `lines that have come before a drain are answered while ${doing} takes all threads`,
    async () => {
      await using t = startServer();
      const clients = await quietClients(t);
      await using _jobs = await take();
      await Promise.all(clients.map((client) => client.write("second\n")));
      const stopping = t.server.shutdown({ drain: "finish" });
      const answers = await Promise.all(clients.map((client) => client.readAll()));
      assertEquals(answers, clients.map(() => "SECOND\n"));
      assertEquals((await stopping).closed, { drained: CLIENTS });
    },
    60,
    missing,
  );

  // On Deno's sockets, a fake clock does not let the event loop ask the kernel first, as a real timer does.
  if (SOCKETS.listen !== undefined) {
    test(
      `lines that have come before idleTimeout are answered while ${doing} takes all threads`,
      async () => {
        const clock = new FakeClock();
        await using t = startServer({ clock, idleTimeout: 1000 });
        const clients = await quietClients(t);
        await clock.advance(500);
        await using _jobs = await take();
        await Promise.all(clients.map((client) => client.write("second\n")));
        // Whether the lines are read before the clock moves or after, no client has been silent for the whole time.
        await clock.advance(500);
        for (const client of clients) assertEquals(await client.readLine(), "SECOND");
        assertEquals(t.all("closed"), []);
      },
      60,
      missing,
    );
  }

  test(
    `what the kernel has is read within a turn of the sockets while ${doing} takes all threads`,
    async () => {
      const listener = listenLoopback();
      const { port } = listener.addr as Deno.NetAddr;
      const pairs = [];
      for (let i = 0; i < CLIENTS; i++) {
        const connecting = Deno.connect({ port });
        const transport = await listener.accept();
        pairs.push({ transport, client: await connecting });
      }
      {
        await using _jobs = await take();
        let bytes = 0;
        const reading = pairs.map(({ transport }) =>
          transport.read(new Uint8Array(10)).then((count) => bytes += count!)
        );
        await Promise.all(pairs.map(({ client }) => client.write(new Uint8Array(3))));
        await socketsTurn();
        assertEquals(bytes, 3 * CLIENTS);
        await Promise.all(reading);
      }
      for (const { transport, client } of pairs) {
        transport.close();
        client.close();
      }
      await listener.close();
    },
    60,
    missing,
  );
}
