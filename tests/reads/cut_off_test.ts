/** What a read of bytes says when its connection has been cut off. */
import { assertEquals } from "@std/assert";
import type { Conn, ServeOptions } from "@x/shouty";
import type { TestClient } from "@x/shouty/testing";
import { test } from "../kit/bounded.ts";
import { inMemory, startConversations } from "../kit/server.ts";

/** Ends that drop what has come, and what brings each of them about. */
const CUTS: Readonly<Record<string, readonly [ServeOptions, (client: TestClient, conn: Conn) => unknown]>> = {
  "reset": [{}, (client) => client.reset()],
  "memory": [{ maxBufferedBytes: 5000 }, (client) => client.write("x".repeat(9000)).catch(() => {})],
  "write-queue": [{ maxQueuedBytes: 1000 }, (_, conn) => void [1, 2].map(() => conn.write("y".repeat(200_000)))],
};

for (const [reason, [options, cut]] of Object.entries(CUTS)) {
  for (const begun of ["", "begun"]) {
    test(`readUntil tells a ${reason} ${begun ? "behind a part of" : "where nothing had come of"} what it reads`, async () => {
      const { listener, clock } = inMemory();
      const read = Promise.withResolvers<unknown>();
      const conns: Conn[] = [];
      await using t = startConversations({ listener, clock, ...options }, async (conn) => {
        conns.push(conn as Conn);
        await conn.readLine();
        read.resolve(await conn.readUntil(";").catch((error) => error.name));
      });
      const client = await t.admitted();
      await client.write(`line\n${begun}`);
      await clock.advance(1);
      await cut(client, conns[0]);
      await clock.advance(1);
      // A connection that has to give memory back has got a part.
      assertEquals([await read.promise, conns[0].ending], [
        begun || reason === "memory" ? "UnexpectedEof" : null,
        reason,
      ]);
    });
  }
}
