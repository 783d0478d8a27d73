import { assert, assertEquals, assertLess } from "@std/assert";
import { TLSSocket } from "node:tls";
import { TestClient } from "@x/shouty/testing";
import type { Transport } from "../../../../internal/api/transport.ts";
import { connectTlsOver } from "../../../../ops/tls/client.ts";
import { ENGINE } from "../../../../ops/tls/engine/wrap.ts";
import { testOnce as test } from "../../../kit/bounded.ts";
import { breakMany } from "../../../kit/foreign/broken_handshakes.ts";
import { memoryAfter } from "../../../kit/figures/memory.ts";
import { AUTHORITY, IDENTITY, pipe, streamOf } from "../../../kit/tls.ts";

const MIB = 1024 * 1024;

/** The number of open descriptors of this process; undefined where that is unknown. */
function descriptors(): number | undefined {
  try {
    return [...Deno.readDirSync("/proc/self/fd")].length;
  } catch {
    return undefined;
  }
}

test("500 handshakes that are broken off anywhere, and good ones in between, leave no descriptor and no timer", async () => {
  // The first connection of a process opens descriptors for good.
  await breakMany(10, 4);
  const before = descriptors();
  await breakMany(500, 4, (clock) => assertEquals(clock.pending, 0));
  // Deno closes sockets later, and keeps a few descriptors of its own. If they stay, the test's time is up.
  while (descriptors()! > before! + 4) await new Promise((resolve) => setTimeout(resolve, 10));
});

test("300 handshakes that are broken off leave no memory", async () => {
  const way = ENGINE.enabled ? "" : 'import "./tests/kit/again/on_streams.ts";';
  const program = (count: number) =>
    `${way} import { breakMany } from "./tests/kit/foreign/broken_handshakes.ts"; await breakMany(${count}, 4)`;
  const [few, many] = [await memoryAfter(program(100)), await memoryAfter(program(400))];
  // Each left open would hold some 20 KiB.
  assertLess(many.heapUsed + many.external, few.heapUsed + few.external + 3 * MIB);
  assertLess(many.rss, few.rss + 60 * MIB);
}, 120);

/** The part of a server's bytes that reaches the client before the connection ends. */
class CutShort implements Pick<Transport, "read"> {
  readonly #inner: Transport;
  left: number;
  passed = 0;

  constructor(inner: Transport, bytes: number) {
    this.#inner = inner;
    this.left = bytes;
  }

  async read(into: Uint8Array): Promise<number | null> {
    if (this.left === 0) return null;
    const count = await this.#inner.read(into.subarray(0, this.left));
    this.left -= count ?? 0;
    this.passed += count ?? 0;
    return count;
  }
}

/** Connects a client to a server whose connection ends after some bytes; returns how many have come. */
async function connectCut(version: "TLSv1.2" | "TLSv1.3", bytes: number): Promise<number> {
  const [serverEnd, clientEnd] = pipe();
  const stream = streamOf(new TestClient(serverEnd));
  const server = new TLSSocket(
    stream,
    { isServer: true, ...IDENTITY, minVersion: version, maxVersion: version } as never,
  );
  server.on("error", () => {});
  const cut = new CutShort(clientEnd, bytes);
  const transport = new Proxy(clientEnd, {
    get(target, name) {
      const value = name === "read" ? cut.read.bind(cut) : Reflect.get(target, name, target);
      return typeof value === "function" && name !== "read" ? value.bind(target) : value;
    },
  });
  try {
    (await connectTlsOver(transport, { serverName: "localhost", caCerts: AUTHORITY.cert })).close();
  } finally {
    clientEnd.close();
    server.destroy();
    stream.destroy();
  }
  return cut.passed;
}

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  test(`A client rejects when the server ends the connection anywhere in the handshake, with ${version}`, async () => {
    const all = await connectCut(version, Infinity);
    // Session tickets may come behind the handshake: without them, it succeeds. Where they begin is not always the same,
    // as a signature's length varies.
    let last = 0;
    for (let bytes = 0; bytes < all; bytes += bytes % 7 + 1) {
      const error = await connectCut(version, bytes).then(() => undefined, (error) => error);
      if (error === undefined) continue;
      last = bytes;
      assertEquals(error instanceof Deno.errors.UnexpectedEof, true, `${bytes}: ${error}`);
    }
    assert(last > 500, `${last} of ${all}`);
  });
}
