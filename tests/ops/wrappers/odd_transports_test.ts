import { once } from "node:events";
import tls from "node:tls";
import { assertEquals, assertInstanceOf, assertMatch } from "@std/assert";
import type { Listener, Transport } from "@x/shouty";
import { listenTls, proxyProtocol, withTelnet, withTrace } from "@x/shouty/ops";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { AcceptRejection } from "../../../internal/api/errors.ts";
import { ENGINE } from "../../../ops/tls/engine/wrap.ts";
import { test } from "../../kit/bounded.ts";
import { makeIdentity } from "../../kit/certificates.ts";
import { tapped } from "../../kit/faults.ts";
import { startServer } from "../../kit/server.ts";
import { AUTHORITY, IDENTITY, streamOf } from "../../kit/tls.ts";

/** Numbers of bytes that no call can have transferred. */
const WRONG: unknown[] = [0, undefined, NaN, -1, 0.5, 1e9, "2"];

const IAC_BYTES = Uint8Array.of(255, 255, 10);

async function onStreams<T>(call: () => Promise<T>): Promise<T> {
  const { enabled } = ENGINE;
  ENGINE.enabled = false;
  try {
    return await call();
  } finally {
    ENGINE.enabled = enabled;
  }
}

const SNI = [makeIdentity("other", { by: AUTHORITY, altNames: ["DNS:other.example"] })];
const from = "127.0.0.1";

/** What can be put around a listener. */
const WRAPPERS: Readonly<Record<string, (listener: Listener) => Listener | Promise<Listener>>> = {
  "TLS": (listener) => listenTls({ listener, ...IDENTITY }),
  "TLS with several names": (listener) => listenTls({ listener, ...IDENTITY, sni: SNI }),
  "TLS on streams": (listener) => onStreams(() => listenTls({ listener, ...IDENTITY })),
  "Telnet": withTelnet,
  "the PROXY protocol": (listener) => proxyProtocol(listener, { from }),
  "the PROXY protocol, from a client without a header": (listener) => proxyProtocol(listener, { from: "192.0.2.1" }),
  "a trace": (listener) => withTrace(listener, { write() {} }),
};

/** Makes one method of the transports of a listener return a wrong number, from a moment on. */
class Odd {
  readonly memory: MemoryListener = new MemoryListener();
  readonly listener: Listener;
  begun = false;
  #calls = 0;

  constructor(method: "read" | "write", wrong: unknown) {
    const call = (inner: Transport, bytes: Uint8Array) => {
      if (!this.begun) return inner[method](bytes);
      // Without an end, the loop of a wrapper would take the whole process with it.
      return ++this.#calls > 10 ? Promise.reject(new Error("Asked again and again")) : Promise.resolve(wrong);
    };
    this.listener = tapped(this.memory, (inner) => ({ [method]: (bytes: Uint8Array) => call(inner, bytes) }));
  }
}

for (const [name, wrap] of Object.entries(WRAPPERS)) {
  test(`A transport below ${name} that returns no number of bytes ends its connection with transport-error`, async () => {
    for (const method of ["read", "write"] as const) {
      for (const wrong of WRONG) {
        const odd = new Odd(method, wrong);
        await using t = startServer({ listener: await wrap(odd.listener) }, (line) => {
          odd.begun = true;
          return `${line} \xff`;
        });
        const client = t.own(odd.memory.connect());
        if (name.startsWith("TLS")) {
          const socket = tls.connect({ socket: streamOf(client), ca: AUTHORITY.cert, servername: "localhost" });
          socket.on("error", () => {});
          await once(socket, "secureConnect");
          socket.write("hello\n");
        } else {
          if (name === "the PROXY protocol") await client.write("PROXY UNKNOWN\r\n");
          await client.write(name === "Telnet" ? IAC_BYTES : "hello\n");
        }
        const { reason, error } = await t.closed();
        assertEquals(reason, "transport-error");
        assertMatch(`${error}`, /Cannot use what (read|write) returned|the transport takes no bytes/);
      }
    }
  });
}

for (const name of ["TLS", "TLS with several names", "TLS on streams", "the PROXY protocol"]) {
  test(`A transport below ${name} that returns no number of bytes at its start is rejected`, async () => {
    for (const wrong of WRONG) {
      const odd = new Odd("read", wrong);
      odd.begun = true;
      const listener = await WRAPPERS[name](odd.listener);
      odd.memory.connect();
      const error = await listener.accept().catch((error) => error);
      assertInstanceOf(error, AcceptRejection);
      assertMatch(`${error.cause}`, /Cannot use what read returned/);
      await listener.close();
    }
  });
}

for (const [name, wrap] of Object.entries(WRAPPERS)) {
  test(`A listener below ${name} that gives no transport is asked again after a pause`, async () => {
    const clock = new FakeClock();
    const memory = new MemoryListener();
    const accepted: unknown[] = [undefined, {}, { read() {}, close() {} }];
    const accept = () => accepted.length > 0 ? Promise.resolve(accepted.shift() as Transport) : memory.accept();
    const odd = { addr: memory.addr, accept, close: () => memory.close() };
    await using t = startServer({ listener: await wrap(odd), clock });
    await clock.advance(1000);
    const events = t.all("accept-error");
    assertEquals(events.map(({ retryMs }) => retryMs), [5, 10, 20]);
    assertMatch(
      `${events[1].error}`,
      /Cannot use what accept returned: expected a transport, got an object without the method read/,
    );
  });
}
