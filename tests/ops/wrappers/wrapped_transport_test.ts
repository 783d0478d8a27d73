import { once } from "node:events";
import tls from "node:tls";
import { assertEquals } from "@std/assert";
import type { Listener, Transport } from "@x/shouty";
import { listenTls, proxyProtocol, withTelnet, withTrace } from "@x/shouty/ops";
import { MemoryListener } from "@x/shouty/testing";
import { resetQuietly } from "../../../internal/api/transport.ts";
import { test } from "../../kit/bounded.ts";
import { tapped } from "../../kit/faults.ts";
import { AUTHORITY, IDENTITY, streamOf } from "../../kit/tls.ts";

/** Accepts a connection of a wrapped listener. `below` makes further members of the inner transport, one in memory. */
type Wrap = (below: (inner: Transport) => Partial<Transport>) => Promise<Transport>;

/** Wraps with the PROXY protocol; `from` decides whether the client is trusted. */
function behindProxy(from: string): Wrap {
  return async (below) => {
    const memory = new MemoryListener();
    const listener = proxyProtocol(tapped(memory, below), { from });
    const client = memory.connect();
    const accepting = listener.accept();
    await client.write("PROXY UNKNOWN\r\n");
    const transport = await accepting;
    await listener.close();
    return transport;
  };
}

/** Wraps with what needs nothing of the client first. */
function wrappedBy(wrapper: (listener: Listener) => Listener): Wrap {
  return async (below) => {
    const memory = new MemoryListener();
    const listener = wrapper(tapped(memory, below));
    memory.connect();
    const transport = await listener.accept();
    await listener.close();
    return transport;
  };
}

const WRAPPERS: Record<string, Wrap> = {
  "TLS": async (below) => {
    const memory = new MemoryListener();
    const listener = await listenTls({ listener: tapped(memory, below), ...IDENTITY });
    const accepting = listener.accept();
    const client = tls.connect({ socket: streamOf(memory.connect()), ca: AUTHORITY.cert, servername: "localhost" });
    client.on("error", () => {});
    await once(client, "secureConnect");
    const transport = await accepting;
    await listener.close();
    return transport;
  },
  "a trace": wrappedBy((listener) => withTrace(listener, { write() {} })),
  "Telnet": wrappedBy(withTelnet),
  "the PROXY protocol": behindProxy("127.0.0.1"),
  "the PROXY protocol, from a client without a header": behindProxy("192.0.2.1"),
};

for (const [name, wrap] of Object.entries(WRAPPERS)) {
  test(`The peer's progress that a transport reports is reported over ${name}, and its absence too`, async () => {
    const progress = [5, 7];
    const telling = await wrap(() => ({ progress: () => progress.shift() ?? 0 }));
    // The bytes of the handshake count once.
    telling.progress?.();
    assertEquals([telling.progress?.(), telling.progress?.()], [7, 0]);
    const silent = await wrap(() => ({}));
    assertEquals(silent.progress, undefined);
    telling.close();
    silent.close();
  });

  test(`A reset over ${name} resets the transport below, or closes it where it cannot reset`, async () => {
    const calls: string[] = [];
    const close = () => void calls.push("close");
    resetQuietly(await wrap(() => ({ close, reset: () => void calls.push("reset") })));
    resetQuietly(await wrap(() => ({ close })));
    assertEquals(calls, ["reset", "close"]);
  });

  test(`The memory that a transport holds is counted over ${name}`, async () => {
    const holding = await wrap((inner) => ({
      get heldBytes() {
        return inner.remoteAddr === undefined ? 0 : 1_000_000;
      },
    }));
    const plain = await wrap(() => ({}));
    assertEquals(holding.heldBytes, plain.heldBytes! + 1_000_000);
    holding.close();
    plain.close();
  });

  test(`A transport that holds a part of what it will give says so over ${name}`, async () => {
    for (const whole of [Promise.resolve(), undefined]) {
      const transport = await wrap(() => ({ whole }));
      assertEquals(transport.whole, whole);
      transport.close();
    }
  });
}

test("Nagle's algorithm is off before the first byte of a TLS handshake, and later as the server sets it", async () => {
  const calls: string[] = [];
  const tls = await WRAPPERS["TLS"]((inner) => ({
    setNoDelay: (noDelay) => void calls.push(`setNoDelay ${noDelay}`),
    write: (bytes) => (calls.push("write"), inner.write(bytes)),
  }));
  assertEquals(calls.slice(0, 2), ["setNoDelay true", "write"]);
  tls.setNoDelay?.(false);
  assertEquals(calls.at(-1), "setNoDelay false");
  tls.close();
});
