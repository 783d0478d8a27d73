import tls, { createSecureContext } from "node:tls";
import { generateKeyPairSync } from "node:crypto";
import { assertEquals, assertRejects } from "@std/assert";
import { tlsCredentials } from "@x/shouty/ops";
import { TestClient } from "@x/shouty/testing";
import type { TlsInfo } from "../../../../internal/api/transport.ts";
import { connectTlsOver } from "../../../../ops/tls/client.ts";
import { engineForClients, testEngine } from "../../../../ops/tls/engine/self_test.ts";
import { EngineTransport } from "../../../../ops/tls/engine/transport.ts";
import { ENGINE } from "../../../../ops/tls/engine/wrap.ts";
import { TlsTransport } from "../../../../ops/tls/streams/transport.ts";
import { test } from "../../../kit/bounded.ts";
import { Authority, makeIdentity } from "../../../kit/certificates.ts";
import { AUTHORITY, IDENTITY, pipe, shakeHands, streamOf } from "../../../kit/tls.ts";
import { withMethod, WRAP } from "../../../kit/tls/engine_methods.ts";

const CLIENTS = new Authority("client authority");
const NO_BYTES = new Uint8Array();

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

const { readBuffer, getBytesRead, drainEncOut, setHandle, writeBuffer, getCipher } = WRAP;

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
  ["encrypts something else", "writeBuffer", function (this: object, request: object, bytes: Uint8Array) {
    return writeBuffer.call(this, request, bytes.map((byte) => byte ^ 1));
  }],
  ["tells nothing of the cipher", "getCipher", () => 0],
  ["tells nothing but the version", "getCipher", (out: { version: string }) => void (out.version = "TLSv1.3")],
  ["tells another version", "getCipher", function (this: object, out: { version: string }) {
    getCipher.call(this, out);
    out.version = "DTLSv1.2";
  }],
  ["resumes sessions by itself", "isSessionReused", () => true],
  ["does not show the peer's certificate", "getPeerCertificateChain", () => null],
  ["verifies otherwise", "verifyError", undefined],
  ["throws", "start", fail],
];

for (const [what, name, method] of CHANGES) {
  test(`The self-test finds a Deno that ${what}`, async () => {
    assertEquals(await withMethod(name, method, () => testEngine(createSecureContext(IDENTITY as never))), undefined);
  });
}

for (const changed of ["server", "client"] as const) {
  test(`The self-test finds a change that its ${changed} alone shows`, async () => {
    const { initClientTls, shutdown } = WRAP;
    const clients = new Set<object>();
    const init = function (this: object, name: unknown, context: unknown) {
      clients.add(this);
      return initClientTls.call(this, name, context);
    };
    const end = function (this: object, request: unknown) {
      return clients.has(this) === (changed === "client") ? 0 : shutdown.call(this, request);
    };
    const found = () =>
      withMethod("shutdown", end, () => testEngine(createSecureContext(IDENTITY as never)) === undefined);
    assertEquals(await withMethod("initClientTls", init, found), true);
    assertEquals(clients.size, 1);
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

test("The self-test frees its engines, and for clients it runs once", async () => {
  const left = await leftAfter(async () => {
    testEngine(createSecureContext(IDENTITY as never));
    await withMethod("shutdown", fail, () => testEngine(createSecureContext(IDENTITY as never)));
  });
  assertEquals(left, 0);
  const Wrap = engineForClients();
  assertEquals(await withMethod("start", fail, () => engineForClients()), Wrap);
});

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

function fail(): never {
  throw new Error("Not today");
}
