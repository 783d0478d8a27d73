import { once } from "node:events";
import tls from "node:tls";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { formatAddr, serve } from "@x/shouty";
import { listenTls, listenUnix } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import { within } from "../../kit/bounded.ts";
import { startServer } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY } from "../../kit/tls.ts";

const MISSING = Deno.build.os === "windows" ? " (skipped: Windows has no Unix sockets in Deno)" : "";

/** Registers a test that gets an unused path in a new folder. */
function test(name: string, fn: (path: string) => Promise<void>, missing = MISSING): void {
  const body = async () => {
    const folder = await Deno.makeTempDir();
    try {
      await within(60, fn(`${folder}/shouty.sock`));
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  };
  Deno.test({ name: name + missing, ignore: missing !== "", fn: body });
}

async function connect(path: string): Promise<TestClient> {
  return new TestClient(await Deno.connect({ transport: "unix", path }));
}

async function talk(path: string, text: string): Promise<string> {
  using client = await connect(path);
  await client.write(text);
  await client.closeWrite();
  return await client.readAll();
}

function exists(path: string): boolean {
  try {
    return Deno.lstatSync(path) !== undefined;
  } catch {
    return false;
  }
}

/** Leaves a file behind as a server that crashes does. */
async function crash(path: string): Promise<void> {
  const script = `Deno.listen({ transport: "unix", path: ${JSON.stringify(path)} }); Deno.exit(1)`;
  const { code } = await new Deno.Command(Deno.execPath(), { args: ["eval", script] }).output();
  assertEquals([code, exists(path)], [1, true]);
}

test("A Unix socket serves like a port, and its file goes with the server", async (path) => {
  await using t = startServer({ listener: await listenUnix({ path }) });
  assertEquals(t.server.addr as unknown, { transport: "unix", path });
  assertEquals(await talk(path, "hello\nworld"), "HELLO\nWORLD\n");
  const { conn, reason } = await t.closed();
  assertEquals([reason, formatAddr(conn.remoteAddr), formatAddr(conn.localAddr)], ["end", "unix", `unix:${path}`]);
  await t.server.shutdown();
  assertEquals(exists(path), false);
});

test("A file that a crashed server has left is replaced", async (path) => {
  await crash(path);
  await using _t = startServer({ listener: await listenUnix({ path, mode: 0o600 }) });
  assertEquals(await talk(path, "hello"), "HELLO\n");
});

test("A socket on which a server listens is not replaced", async (path) => {
  await using _t = startServer({ listener: await listenUnix({ path }) });
  const { message } = await assertRejects(() => listenUnix({ path }), Deno.errors.AddrInUse);
  assertEquals(message, `Cannot listen on "${path}": another server listens there`);
  assertEquals(await talk(path, "hello"), "HELLO\n");
});

test("A socket whose backlog is full is not replaced", async (path) => {
  using listener = Deno.listen({ transport: "unix", path });
  const clients: Deno.Conn[] = [];
  try {
    // The listener does not accept. Once its backlog is full, connecting fails or waits.
    for (let left = 10_000; left > 0; left--) clients.push(await soon(Deno.connect({ transport: "unix", path })));
  } catch {
    await assertRejects(() => listenUnix({ path }), Deno.errors.AddrInUse);
  }
  for (const client of clients) client.close();
  assertEquals(exists(path), true);
  assertEquals(listener.addr.path, path);
}, Deno.build.os === "linux" ? "" : " (skipped: a full backlog looks like a crash here, unless it empties)");

test("A regular file stays, with what is in it", async (path) => {
  await Deno.writeTextFile(path, "precious");
  const { message } = await assertRejects(() => listenUnix({ path }), Deno.errors.AlreadyExists);
  assertEquals(message, `Cannot listen on "${path}": there is a file that is not a socket`);
  assertEquals(await Deno.readTextFile(path), "precious");
});

test("A folder stays, and so does a link to a dead socket", async (path) => {
  await Deno.mkdir(path);
  await assertRejects(() => listenUnix({ path }), Deno.errors.AlreadyExists);
  const dead = `${path}/dead.sock`;
  await crash(dead);
  const link = `${path}/link.sock`;
  await Deno.symlink(dead, link);
  await assertRejects(() => listenUnix({ path: link }), Deno.errors.AlreadyExists);
  assertEquals([exists(link), exists(dead)], [true, true]);
});

test("The file has the mode bits that were asked for, or the umask's", async (path) => {
  const umask = Deno.umask();
  for (const mode of [0o600, 0o660, 0o666, 0o777]) {
    await using _server = serve({ listener: await listenUnix({ path, mode }) });
    assertEquals((await Deno.lstat(path)).mode! & 0o777, mode);
  }
  await using _server = serve({ listener: await listenUnix({ path }) });
  assertEquals((await Deno.lstat(path)).mode! & 0o777, 0o777 & ~umask);
  assertEquals(Deno.umask(), umask);
});

test("Without permission to change the umask, the mode bits come after", async (path) => {
  const script = `
    import { listenUnix } from ${JSON.stringify(new URL("../../../ops/sockets/unix.ts", import.meta.url))};
    const path = ${JSON.stringify(path)};
    const listener = await listenUnix({ path, mode: 0o666 });
    console.log((Deno.statSync(path).mode & 0o777).toString(8));
    listener.close();
  `;
  const file = `${path}.ts`;
  await Deno.writeTextFile(file, script);
  const permissions = [`--allow-read=${path}`, `--allow-write=${path}`, `--allow-net=unix:${path}`];
  const args = ["run", "--no-prompt", "--no-config", ...permissions, file];
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  assertEquals(new TextDecoder().decode(stdout), "666\n", new TextDecoder().decode(stderr));
});

test("listenUnix() refuses wrong options, and a path where there cannot be a socket", async (path) => {
  await assertRejects(() => listenUnix({ path: "" }), TypeError, 'Cannot use path "": expected a file\'s name');
  await assertRejects(() => listenUnix({ path, mode: 0o1000 }), RangeError, "Cannot use mode 512: expected a whole");
  const cannot = `Cannot listen on "${path}/x": `;
  await assertRejects(() => listenUnix({ path: `${path}/x` }), Deno.errors.NotFound, cannot);
  const { message } = await assertRejects(() => listenUnix({ path: path + "x".repeat(100) }), TypeError);
  assertMatch(message, /SUN_LEN/);
});

test("A file never has more mode bits than were asked for, not even before it is given them", async (path) => {
  const { listen } = Deno;
  const modes: number[] = [];
  const listening = (options: Deno.UnixListenOptions & { transport: "unix" }) => {
    const listener = listen(options);
    modes.push(Deno.lstatSync(path).mode! & 0o777);
    return listener;
  };
  using stack = new DisposableStack();
  Deno.listen = listening as unknown as typeof Deno.listen;
  stack.defer(() => void (Deno.listen = listen));
  const umask = Deno.umask();
  for (const mode of [0o600, 0o640]) (await listenUnix({ path, mode })).close();
  assertEquals(modes, [0o600, 0o640]);
  assertEquals(Deno.umask(), umask);
  await assertRejects(() => listenUnix({ path: `${path}/x`, mode: 0o600 }), Deno.errors.NotFound);
  assertEquals(Deno.umask(), umask, "A failure leaves the process's umask changed");
});

/** Replaces `Deno.connect` by a function that gets the number of calls before. */
function onConnect(behave: (call: number, connect: () => Promise<Deno.Conn>) => Promise<Deno.Conn>): Disposable {
  const { connect } = Deno;
  let calls = 0;
  const instead = (options: Deno.UnixConnectOptions) => behave(calls++, () => connect(options));
  Deno.connect = instead as unknown as typeof Deno.connect;
  return { [Symbol.dispose]: () => void (Deno.connect = connect) };
}

test("A server that refuses two connections and accepts the third keeps its socket", async (path) => {
  await using _t = startServer({ listener: await listenUnix({ path }) });
  // BSD and macOS refuse connections with this error while the backlog is full.
  const refuse = () => Promise.reject(new Deno.errors.ConnectionRefused("Connection refused (os error 61)"));
  using _busy = onConnect((call, connect) => call < 2 ? refuse() : connect());
  await assertRejects(() => listenUnix({ path }), Deno.errors.AddrInUse);
});

test("A socket that comes in a dead one's place while that is looked at is not deleted", async (path) => {
  await crash(path);
  let quicker: Deno.Listener | undefined;
  const replacing = async (call: number, connect: () => Promise<Deno.Conn>) => {
    try {
      return await connect();
    } catch (error) {
      if (call === 2) {
        Deno.removeSync(path);
        quicker = Deno.listen({ transport: "unix", path });
      }
      throw error;
    }
  };
  {
    using _race = onConnect(replacing);
    await assertRejects(() => listenUnix({ path }), Deno.errors.AddrInUse);
  }
  using client = await Deno.connect({ transport: "unix", path });
  (await quicker!.accept()).close();
  assertEquals(await client.read(new Uint8Array(1)), null);
  quicker!.close();
});

test("TLS goes over a Unix socket as well", async (path) => {
  const listener = await listenTls({ listener: await listenUnix({ path }), ...IDENTITY });
  await using _t = startServer({ listener });
  const client = tls.connect({ path, ca: AUTHORITY.cert, servername: "localhost" });
  client.write("hello\n");
  const [reply] = await once(client, "data");
  assertEquals(`${reply}`, "HELLO\n");
  client.end();
  await once(client, "close");
});

/** Settles with the promise, or rejects after five seconds. */
async function soon<T>(promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("Too late")), 5000);
  return await Promise.race([promise, late.promise]).finally(() => clearTimeout(timer));
}
