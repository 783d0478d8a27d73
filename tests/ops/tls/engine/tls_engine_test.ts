import tls, { createSecureContext } from "node:tls";
import { generateKeyPairSync } from "node:crypto";
import { assertEquals, assertLess, assertMatch, assertRejects } from "@std/assert";
import { tlsCredentials } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import type { TlsInfo, Transport } from "../../../../internal/api/transport.ts";
import { connectTlsOver } from "../../../../ops/tls/client.ts";
import { testEngine } from "../../../../ops/tls/engine/self_test.ts";
import { EngineTransport } from "../../../../ops/tls/engine/transport.ts";
import { ENGINE, tlsWrapClass } from "../../../../ops/tls/engine/wrap.ts";
import { TlsTransport } from "../../../../ops/tls/streams/transport.ts";
import { test } from "../../../kit/bounded.ts";
import { Authority, makeIdentity } from "../../../kit/certificates.ts";
import { AUTHORITY, IDENTITY, pipe, shakeHands, streamOf } from "../../../kit/tls.ts";

const CLIENTS = new Authority("client authority");
const NO_BYTES = new Uint8Array();

/** The prototype of the object beneath `node:tls`, for a test that changes it. */
const WRAP = tlsWrapClass()!.prototype as Record<string, (...args: unknown[]) => unknown>;

/** Replaces a method of it while a function runs. */
async function withMethod<T>(name: string, method: unknown, run: () => T | Promise<T>): Promise<T> {
  const before = WRAP[name];
  WRAP[name] = method as never;
  try {
    return await run();
  } finally {
    WRAP[name] = before;
  }
}

test("Both sides of TLS run on engines in this version of Deno, and on streams if they are switched off", async () => {
  using both = await shakeHands(await tlsCredentials(IDENTITY));
  assertEquals([both.server.constructor, both.client.constructor], [EngineTransport, EngineTransport]);
  ENGINE.enabled = false;
  try {
    using streams = await shakeHands(await tlsCredentials(IDENTITY));
    assertEquals([streams.server.constructor, streams.client.constructor], [TlsTransport, TlsTransport]);
  } finally {
    ENGINE.enabled = true;
  }
});

test("The self-test of engines passes with each key that TLS can use, whatever its certificate", () => {
  const works = (options: Parameters<typeof makeIdentity>[1]) =>
    testEngine(createSecureContext(makeIdentity("server", options) as never)) !== undefined;
  assertEquals(works({}), true);
  assertEquals(works({ by: AUTHORITY }), true);
  assertEquals(works({ curve: "P-384" }), true);
  assertEquals(works({ days: [-9, -1] }), true);
  assertEquals(works({ version1: true }), true);
  assertEquals(works({ by: AUTHORITY, usage: "client" }), true);
  // Each handshake needs the key: none resumes a session of the one before.
  assertEquals([works({}), works({ curve: "secp256k1" })], [true, false]);
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const key = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  assertEquals(testEngine(createSecureContext({ cert: IDENTITY.cert, key })), undefined, "Another's key");
});

const { readBuffer, getBytesRead, drainEncOut, setHandle, writeBuffer } = WRAP;

/** What a later version of Deno may do in place of what this one does. */
const CHANGES: [what: string, name: string, method: unknown][] = [
  ["has no buffer of the caller's", "useUserBuffer", undefined],
  ["counts otherwise", "getBytesRead", () => 0],
  ["counts only what it has delivered", "getBytesRead", function (this: object) {
    return (getBytesRead.call(this) as number) - 1;
  }],
  ["loses a byte of input", "readBuffer", function (this: object, bytes: Uint8Array) {
    readBuffer.call(this, bytes.length === 4096 ? bytes.subarray(1) : bytes);
  }],
  ["drains in parts", "drainEncOut", function (this: object) {
    return (drainEncOut.call(this) as Uint8Array).subarray(0, 20_000);
  }],
  ["sends no close_notify", "shutdown", () => 0],
  ["tells nobody", "setHandle", function (this: object) {
    setHandle.call(this, {});
  }],
  ["encrypts less at once", "writeBuffer", function (this: object, request: object, bytes: Uint8Array) {
    return writeBuffer.call(this, request, bytes.subarray(0, 16_384));
  }],
  ["tells nothing of the cipher", "getCipher", () => 0],
  ["verifies otherwise", "verifyError", undefined],
  ["throws", "start", () => {
    throw new Error("Not today");
  }],
];

for (const [what, name, method] of CHANGES) {
  test(`The self-test finds a Deno that ${what}`, async () => {
    assertEquals(await withMethod(name, method, () => testEngine(createSecureContext(IDENTITY as never))), undefined);
  });
}

test("In a Deno that has changed, TLS runs on streams, and a useless key is refused all the same", async () => {
  await withMethod("useUserBuffer", undefined, async () => {
    const credentials = await tlsCredentials(IDENTITY);
    const [serverEnd, clientEnd] = pipe();
    const stream = streamOf(new TestClient(clientEnd));
    const socket = tls.connect({ socket: stream, ca: AUTHORITY.cert, servername: "localhost" });
    socket.write("x");
    const server = await credentials.accept(serverEnd, NO_BYTES);
    assertEquals([server.constructor, await server.read(new Uint8Array(9))], [TlsTransport, 1]);
    server.close();
    for (const end of [socket, stream]) end.destroy();
    const odd = makeIdentity("odd", { curve: "secp256k1" });
    await assertRejects(() => tlsCredentials(odd), Error, "Cannot use key: it is of a kind that is not supported");
  });
});

test("A client that sends nothing costs no engine", async () => {
  const credentials = await tlsCredentials(IDENTITY);
  let made = 0;
  const { initServerTls } = WRAP;
  const count = function (this: object, context: object) {
    made++;
    return initServerTls.call(this, context);
  };
  await withMethod("initServerTls", count, async () => {
    const [serverEnd, clientEnd] = pipe();
    const failing = assertRejects(() => credentials.accept(serverEnd, NO_BYTES));
    await new Promise((resolve) => setTimeout(resolve, 0));
    assertEquals(made, 0);
    await clientEnd.write(Uint8Array.of(22));
    await clientEnd.closeWrite();
    await failing;
    assertEquals(made, 1);
    serverEnd.close();
    clientEnd.close();
  });
});

/** Every `Engine` is freed once; returns the number of those that were not. */
async function leftAfter(play: () => Promise<void>): Promise<number> {
  const { start, destroySsl } = WRAP;
  const open = new Set<object>();
  const started = function (this: object) {
    open.add(this);
    return start.call(this);
  };
  const destroyed = function (this: object) {
    open.delete(this);
    return destroySsl.call(this);
  };
  await withMethod("start", started, () => withMethod("destroySsl", destroyed, play));
  return open.size;
}

test("However a connection ends, its engine is freed", async () => {
  const credentials = await tlsCredentials({ ...IDENTITY, clientCa: CLIENTS.cert });
  const known = makeIdentity("known", { by: CLIENTS });
  const left = await leftAfter(async () => {
    for (const end of ["close", "reset"] as const) {
      const both = await shakeHands(credentials, known);
      both.server[end]!();
      both.client[end]!();
    }
    for (const options of [makeIdentity("stranger"), { ...known, serverName: "elsewhere.example" }]) {
      const [serverEnd, clientEnd] = pipe();
      const all = { serverName: "localhost", caCerts: AUTHORITY.cert, ...options };
      // With TLS 1.3, the client's side of the handshake is done before the server refuses its certificate.
      const connecting = connectTlsOver(clientEnd, all).then((client) => client.close(), () => clientEnd.close());
      await assertRejects(() => credentials.accept(serverEnd, NO_BYTES));
      serverEnd.close();
      await connecting;
    }
    const [serverEnd, clientEnd] = pipe();
    const accepting = credentials.accept(serverEnd, Uint8Array.of(22, 3));
    await new Promise((resolve) => setTimeout(resolve, 0));
    serverEnd.close();
    await assertRejects(() => accepting);
    clientEnd.close();
  });
  assertEquals(left, 0);
});

/** A server's connection over a transport whose methods a test has replaced, and the client's. */
async function connected(replace: (inner: Transport) => Partial<Transport> = () => ({})) {
  const [serverEnd, clientEnd] = pipe();
  const inner = Object.create(serverEnd) as Transport;
  for (const name of ["read", "write", "closeWrite", "close", "reset", "progress"] as const) {
    Object.defineProperty(inner, name, { value: serverEnd[name].bind(serverEnd), writable: true });
  }
  for (const name of ["remoteAddr", "localAddr", "heldBytes"] as const) {
    Object.defineProperty(inner, name, { get: () => serverEnd[name as "remoteAddr"] });
  }
  const credentials = await tlsCredentials(IDENTITY);
  const [server, client] = await Promise.all([
    credentials.accept(inner, NO_BYTES),
    connectTlsOver(clientEnd, { serverName: "localhost", caCerts: AUTHORITY.cert }),
  ]);
  Object.assign(inner, replace(inner));
  return {
    ...{ server, client, inner, clientEnd },
    [Symbol.dispose]() {
      server.close();
      client.close();
    },
  };
}

/** The two ways in which TLS can run. */
const WAYS = { "engines": true, "streams": false };

/** The same, on engines or on streams. */
async function connectedOn(enabled: boolean, replace?: (inner: Transport) => Partial<Transport>) {
  ENGINE.enabled = enabled;
  try {
    return await connected(replace);
  } finally {
    ENGINE.enabled = true;
  }
}

test("A damaged record ends the connection on both sides: the peer gets an alert", async () => {
  using t = await connected();
  await t.clientEnd.write(Uint8Array.of(23, 3, 3, 0, 40, ...new Uint8Array(40)));
  assertMatch(`${await assertRejects(() => t.server.read(new Uint8Array(9)))}`, /decrypt/);
  assertMatch(`${await assertRejects(() => t.client.read(new Uint8Array(9)))}`, /BadRecordMac|DecryptError/);
  await assertRejects(() => t.server.write(Uint8Array.of(1)), Error, "decrypt");
});

for (const size of [9, 16 * 1024]) {
  test(`A peer whose records never end lets others have their turn, and a close ends the read (of ${size} bytes)`, () =>
    readsThatNeverEnd(size));
}

async function readsThatNeverEnd(size: number): Promise<void> {
  let reads = 0;
  const endless = (into: Uint8Array) => {
    return ++reads < 10_000 ? Promise.resolve(into.length) : Promise.reject(new Error("No other has had a turn"));
  };
  using t = await connected(() => ({ read: endless }));
  // As if all of it were the beginning of a record.
  await withMethod("readBuffer", () => {}, async () => {
    const reading = assertRejects(() => t.server.read(new Uint8Array(size)), Deno.errors.Interrupted);
    await new Promise((resolve) => setTimeout(resolve, 0));
    const before = reads;
    t.server.close();
    await reading;
    assertEquals(reads, before, "Nothing is read below after that");
  });
}

test("Between two reads a connection holds little of what its peer has sent, however much was read before", async () => {
  for (const size of [64 * 1024, 256]) {
    using t = await connected();
    const sending = (async () => {
      for (;;) await t.client.write(new Uint8Array(48 * 1024));
    })();
    sending.catch(() => {});
    for (let i = 0; i < 40; i++) await t.server.read(new Uint8Array(64 * 1024));
    let most = 0;
    for (let i = 0; i < 400; i++) {
      await t.server.read(new Uint8Array(size));
      most = Math.max(most, t.server.heldBytes!);
    }
    // The rest of one record, and a buffer that is as large as the next.
    assertLess(most, 33 * 1024);
  }
});

test("The memory by which a read buffer has grown is counted, as long as a connection has it", async () => {
  const { now } = performance;
  using t = await connected();
  assertEquals(t.server.heldBytes, 0);
  const sending = (async () => {
    for (;;) await t.client.write(new Uint8Array(48 * 1024));
  })();
  sending.catch(() => {});
  // On a machine that is slow in decrypting, the buffer would not grow.
  performance.now = () => 0;
  try {
    const held = new Set<number>();
    for (let i = 0; i < 20; i++) {
      await t.server.read(new Uint8Array(64 * 1024));
      held.add(t.server.heldBytes!);
    }
    // One of 17 KiB is kept, at the start it was of 1 KiB; one of 64 KiB is given back at once.
    assertEquals([Math.max(...held), held.has(0)], [16 * 1024, true]);
  } finally {
    performance.now = now;
  }
});

test("A record that comes byte by byte is read whole", async () => {
  using t = await connected();
  const into = new Uint8Array(100);
  const reading = t.server.read(into);
  const parts: number[] = [];
  const write = t.clientEnd.write.bind(t.clientEnd);
  t.clientEnd.write = (bytes) => {
    parts.push(...bytes);
    return Promise.resolve(bytes.length);
  };
  await t.client.write(new TextEncoder().encode("hello"));
  t.clientEnd.write = write;
  for (const byte of parts) {
    await write(Uint8Array.of(byte));
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  assertEquals([await reading, new TextDecoder().decode(into.subarray(0, 5))], [5, "hello"]);
});

for (const [on, enabled] of Object.entries(WAYS)) {
  test(`A write is done when all that it has encrypted is taken, and its bytes are counted on the way, on ${on}`, async () => {
    let taken = 0;
    using t = await connectedOn(enabled, (inner) => {
      const { write } = inner;
      return {
        async write(bytes) {
          const count = await write(bytes.subarray(0, 1000));
          taken += count;
          return count;
        },
        progress: () => 7,
      };
    });
    const reading = (async () => {
      for (let left = 100_000; left > 0;) left -= (await t.client.read(new Uint8Array(9000)))!;
    })();
    let written = 0;
    while (written < 100_000) {
      const count = await t.server.write(new Uint8Array(100_000 - written));
      assertLess(count, 49_153);
      assertEquals([t.server.progress!(), t.server.progress!()], [taken + 7, 7]);
      taken = 0;
      written += count;
    }
    await reading;
    assertEquals(t.server.heldBytes, 0);
  });
}

test("A write that fails below ends the connection with that error", async () => {
  using t = await connected(() => ({ write: () => Promise.reject(new Error("Broken")) }));
  await assertRejects(() => t.server.write(new Uint8Array(9)), Error, "Broken");
  await assertRejects(() => t.server.write(new Uint8Array(9)), Error, "Broken");
  await assertRejects(() => t.server.closeWrite(), Error, "Broken");
  await assertRejects(() => t.server.read(new Uint8Array(9)), Error, "Broken");
});

for (const [on, enabled] of Object.entries(WAYS)) {
  test(`An end that fails below, or before it the write of close_notify, fails with that error, on ${on}`, async () => {
    for (const name of ["closeWrite", "write"] as const) {
      using t = await connectedOn(enabled, () => ({ [name]: () => Promise.reject(new Error("Broken")) }));
      await assertRejects(() => t.server.closeWrite(), Error, "Broken");
    }
  });
}

for (const [on, enabled] of Object.entries(WAYS)) {
  test(`After close_notify of both sides, reads find the end, and the connection is closed without a second one, on ${on}`, async () => {
    using t = await connectedOn(enabled);
    await t.client.closeWrite();
    assertEquals(await t.server.read(new Uint8Array(9)), null);
    await t.server.write(Uint8Array.of(1));
    await t.server.closeWrite();
    let written = 0;
    t.inner.write = (bytes) => {
      written++;
      return Promise.resolve(bytes.length);
    };
    t.server.close();
    assertEquals(await t.client.read(new Uint8Array(9)), 1);
    assertEquals(await t.client.read(new Uint8Array(9)), null);
    assertEquals(written, 0);
  });
}

test("What a handshake has agreed on is the same on engines and on streams", async () => {
  const known = makeIdentity("known", { by: CLIENTS });
  const infos: (TlsInfo | undefined)[] = [];
  for (const enabled of [true, false]) {
    ENGINE.enabled = enabled;
    try {
      const credentials = await tlsCredentials({ ...IDENTITY, clientCa: CLIENTS.cert, alpnProtocols: ["imap"] });
      using both = await shakeHands(credentials, { ...known, alpnProtocols: ["x", "imap"] });
      infos.push(both.server.tls, both.client.tls);
    } finally {
      ENGINE.enabled = true;
    }
  }
  assertEquals(infos.slice(0, 2), infos.slice(2));
  assertEquals(infos[0]!.peer!.subject, "CN=known");
});
