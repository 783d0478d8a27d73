import { assertEquals, assertRejects } from "@std/assert";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { talk } from "../../../cli/connect/client.ts";
import { NO_LIMITS } from "../../../cli/connect/dial.ts";
import { CommandError } from "../../../cli/system/errors.ts";
import { connect as connectHere } from "../../../client.ts";

/** How long the client waits, after the server has closed the connection, for the end of its input. */
const LAST_INPUT_MS = 100;

/** A client whose server has closed the connection at once, and which waits whether its input ends as well. */
interface LastInput extends AsyncDisposable {
  endWait(): void;
  endInput(): void;
  /** The lines that it writes to stderr at its end. */
  said(): Promise<string[]>;
}

/** Runs the client in this process, so that the test controls its timers and its streams. */
async function serverEndedFirst(): Promise<LastInput> {
  const input = Promise.withResolvers<null>();
  const waiting = Promise.withResolvers<() => void>();
  const said: string[] = [];
  const { setTimeout } = globalThis;
  const { error } = console;
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  Deno.stdin.read = () => input.promise;
  console.error = (line) => said.push(line);
  // The connection has timers of its own.
  const fake = (end: () => void, ms: number) => ms === LAST_INPUT_MS ? waiting.resolve(end) : setTimeout(end, ms);
  Object.assign(globalThis, { setTimeout: fake });
  const { port } = listener.addr;
  const connected = connectHere({ port, ...NO_LIMITS }).then((conn) => talk(conn, "the server", Infinity));
  (await listener.accept()).close();
  const ended = connected.then(() => Promise.reject(new Error("It does not wait")));
  return {
    endWait: await Promise.race([waiting.promise, ended]),
    endInput: () => input.resolve(null),
    said: async () => (await connected, said),
    async [Symbol.asyncDispose]() {
      Object.assign(globalThis, { setTimeout });
      console.error = error;
      input.resolve(null);
      await ended.catch(() => {});
      delete (Deno.stdin as Partial<typeof Deno.stdin>).read;
    },
  };
}

Deno.test("connect does not complain of a server that ended first if its input ends just then, too", async () => {
  await using client = await serverEndedFirst();
  client.endInput();
  assertEquals(await client.said(), []);
});

Deno.test("connect waits a tenth of a second for the end of its input when the server has ended", async () => {
  await using client = await serverEndedFirst();
  client.endWait();
  assertEquals(await client.said(), ["shouty: the server has closed the connection"]);
});

/** Runs the client in this process, against a server in memory; its input has ended, and its stdout waits for the test. */
async function withBusyStdout() {
  const clock = new FakeClock();
  const listener = new MemoryListener();
  const server = listener.connect();
  const transport = await listener.accept();
  const conn = await connectHere({ dial: () => transport, clock, ...NO_LIMITS });
  const written: string[] = [];
  const taken = Promise.withResolvers<void>();
  let asked = Promise.withResolvers<void>();
  Deno.stdin.read = () => Promise.resolve(null);
  Deno.stdout.write = async (bytes) => {
    written.push(new TextDecoder().decode(bytes));
    asked.resolve();
    await taken.promise;
    return bytes.length;
  };
  const talked = talk(conn, "the server", 1000);
  return {
    ...{ clock, conn, server, written, talked, take: taken.resolve },
    /** Waits until the client writes to stdout once more. */
    async asked(): Promise<void> {
      await asked.promise;
      asked = Promise.withResolvers();
    },
    async [Symbol.asyncDispose]() {
      delete (Deno.stdin as Partial<typeof Deno.stdin>).read;
      delete (Deno.stdout as Partial<typeof Deno.stdout>).write;
      await clock.advance(3000);
      await conn.closed;
    },
  };
}

Deno.test("connect waits for hours until stdout takes what has come, and then its timeout for the server", async () => {
  await using client = await withBusyStdout();
  const failed = assertRejects(() => client.talked, CommandError, "no reply from the server within 1 s");
  await client.server.write("one\n");
  await client.asked();
  await client.server.write("two\n");
  await client.clock.advance(3_600_000);
  client.take();
  await client.asked();
  await client.clock.advance(999);
  assertEquals([client.written, client.conn.signal.aborted], [["one\n", "two\n"], false]);
  await client.clock.advance(1);
  await failed;
});

Deno.test("connect waits for hours until stdout takes what has come, also if the server has ended", async () => {
  await using client = await withBusyStdout();
  await client.server.write("one\n");
  await client.asked();
  await client.server.write("two\n");
  await client.server.closeWrite();
  await client.clock.advance(3_600_000);
  client.take();
  await client.talked;
  assertEquals(client.written, ["one\n", "two\n"]);
});
