import { assertEquals, assertRejects } from "@std/assert";
import { type CloseReason, type Conn, serve, serveConnections, shout } from "@x/shouty";
import type { FakeClock, TestClient } from "@x/shouty/testing";
import { turn } from "../../../internal/time/event_loop.ts";
import { test } from "../../kit/bounded.ts";
import { inMemory, type Start, TestServer } from "../../kit/server.ts";

const BIG = "x".repeat(100_000);

/** A connection in some state, with its client, its clock, and its handler. */
interface Scene {
  t: TestServer;
  client: TestClient;
  clock: FakeClock;
  /** Lets the handler go on. */
  release: () => void;
}

/** A state of a connection: how it gets there, and what has to happen before it is at a line boundary. */
interface State {
  enter: (scene: Scene) => Promise<unknown>;
  /** Moves it to a line boundary; undefined if it is at one. */
  goOn?: (scene: Scene) => unknown;
  /** The bytes that the client still gets. */
  owed: string;
  /** The reason of its end, if it has one already. */
  reason?: CloseReason;
}

const STATES: Readonly<Record<string, State>> = {
  "that never spoke": { enter: async () => {}, owed: "" },
  "that is idle": {
    enter: async ({ client }) => {
      await client.write("hello\n");
      assertEquals(await client.readLine(), "HELLO");
    },
    owed: "",
  },
  "in mid-line": {
    enter: ({ client }) => client.write("hal"),
    goOn: ({ client }) => client.write("f\n"),
    owed: "HALF\n",
  },
  "in mid-handler": {
    enter: ({ client }) => client.write("wait\nand then\n"),
    goOn: ({ release }) => release(),
    owed: "WAIT\nAND THEN\n",
  },
  "that is write-blocked": {
    enter: ({ client }) => client.write("big\n"),
    // The client reads in any case.
    goOn: () => {},
    owed: `${BIG}\n`,
  },
  "that lingers": {
    enter: async ({ client }) => {
      await client.write("quit\n");
      assertEquals(await client.readLine(), "QUIT");
      assertEquals(await client.readLine(), null);
    },
    goOn: ({ client }) => client.closeWrite(),
    owed: "",
    reason: "closed",
  },
};

function startKind(kind: string, released: Promise<void>): Start {
  const answer = async (line: string, conn: Conn) => {
    if (line === "wait") await released;
    if (line === "quit") conn.close();
    return line === "big" ? BIG : shout(line);
  };
  if (kind === "a line handler") return (options) => serve(options, answer);
  return (options) =>
    serveConnections(options, async (conn) => {
      for await (const line of conn.lines) {
        if (line === "quit") return await conn.write("QUIT\n");
        await conn.write(`${await answer(line, conn)}\n`);
      }
    });
}

/** Brings a connection into a state, and runs a scenario on it. */
async function play(kind: string, { enter }: State, scenario: (scene: Scene) => Promise<void>): Promise<void> {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const { listener, clock } = inMemory({ bufferBytes: 1000 });
  await using t = new TestServer(startKind(kind, released), { listener, clock, idleTimeout: Infinity });
  const scene = { t, clock, client: await t.admitted(), release };
  await enter(scene);
  await clock.advance(1);
  await scenario(scene);
}

/** Reads to the end of input as the client, and closes its connection; returns the text. */
async function readToTheEnd({ client }: Scene): Promise<string> {
  const text = await client.readAll();
  client.close();
  return text;
}

for (const kind of ["a line handler", "a conversation"]) {
  for (const [name, state] of Object.entries(STATES)) {
    const handlersLeft = name === "in mid-handler" ? 1 : 0;
    test(`linger: a connection ${name} lives on until its client leaves (${kind})`, () =>
      play(kind, state, async (scene) => {
        const stopped = scene.t.server.shutdown({ drain: "linger", drainTimeout: Infinity });
        await scene.clock.advance(1500);
        assertEquals(scene.t.stats.active, 1);
        await state.goOn?.(scene);
        if (state.reason === undefined) await scene.client.write("more\n").then(() => scene.client.closeWrite());
        assertEquals(await scene.client.readAll(), state.owed + (state.reason === undefined ? "MORE\n" : ""));
        assertEquals((await stopped).closed, { [state.reason ?? "end"]: 1 });
      }));

    test(`finish: a connection ${name} ends when everything is answered (${kind})`, () =>
      play(kind, state, async (scene) => {
        const stopped = scene.t.server.shutdown({ drain: "finish" });
        if (state.goOn !== undefined) {
          await scene.clock.advance(600);
          // The server needs turns of the event loop to see that the connection is quiet.
          for (let turns = 0; turns < 5; turns++) await turn();
          assertEquals(scene.t.stats.active, 1);
          await state.goOn(scene);
        }
        assertEquals(await readToTheEnd(scene), state.owed);
        assertEquals((await stopped).closed, { [state.reason ?? "drained"]: 1 });
      }));

    for (const drain of ["linger", "finish"] as const) {
      test(`${drain}: a connection ${name} is aborted at the deadline (${kind})`, () =>
        play(kind, state, async ({ t, clock, client }) => {
          const stopped = t.server.shutdown({ drain, drainTimeout: 100 });
          await clock.advance(99);
          // A connection at a line boundary may have been closed gracefully; it lingers then, unless it got no reply.
          const reason = state.reason ?? (drain === "finish" && state.goOn === undefined ? "drained" : "drain-timeout");
          if (reason !== "drained") assertEquals(t.stats.active, 1);
          else assertEquals(await client.readAll(), "");
          await clock.advance(1);
          const durationMs = reason === "drained" && name === "that never spoke" ? 0 : 100;
          assertEquals(await stopped, { closed: { [reason]: 1 }, handlersLeft, durationMs });
        }));
    }

    test(`a second call changes linger to finish for a connection ${name} (${kind})`, () =>
      play(kind, state, async (scene) => {
        const stopped = scene.t.server.shutdown({ drain: "linger" });
        await scene.clock.advance(700);
        assertEquals(scene.t.stats.active, 1);
        scene.t.server.shutdown({ drain: "finish" });
        await state.goOn?.(scene);
        assertEquals(await readToTheEnd(scene), state.owed);
        assertEquals((await stopped).closed, { [state.reason ?? "drained"]: 1 });
      }));

    test(`a second call brings the deadline of a connection ${name} forward (${kind})`, () =>
      play(kind, state, async ({ t, clock }) => {
        const stopped = t.server.shutdown();
        await clock.advance(700);
        t.server.shutdown({ drainTimeout: 50 });
        await clock.advance(50);
        assertEquals(await stopped, {
          closed: { [state.reason ?? "drain-timeout"]: 1 },
          handlersLeft,
          durationMs: 750,
        });
      }));
  }
}

for (const drain of ["linger", "finish"] as const) {
  test(`${drain}: rejected connections that linger do not delay a shutdown`, async () => {
    const { listener, clock } = inMemory();
    await using t = new TestServer(serve, { listener, clock, maxConnections: 1 });
    const admitted = await t.admitted();
    const rejected = [await t.connect(), await t.connect()];
    await t.until("rejected", 2);
    for (const client of rejected) assertEquals(await client.readLine(), "error: more than 1 connection");
    const stopped = t.server.shutdown({ drain });
    admitted.close();
    assertEquals(await stopped, { closed: { end: 1 }, handlersLeft: 0, durationMs: 0 });
    for (const client of rejected) await assertRejects(() => client.write("x"));
  });
}
