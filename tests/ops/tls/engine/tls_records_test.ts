import { assertEquals, assertLess, assertMatch, assertRejects } from "@std/assert";
import { tlsCredentials } from "@x/shouty/ops";
import type { Transport } from "../../../../internal/api/transport.ts";
import { connectTlsOver } from "../../../../ops/tls/client.ts";
import { ENGINE } from "../../../../ops/tls/engine/wrap.ts";
import { test } from "../../../kit/bounded.ts";
import { AUTHORITY, IDENTITY, pipe } from "../../../kit/tls.ts";
import { withMethod } from "../../../kit/tls/engine_methods.ts";

const NO_BYTES = new Uint8Array();

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
