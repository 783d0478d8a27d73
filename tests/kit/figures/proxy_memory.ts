/**
 * The PROXY protocol in memory, on a clock that stands still.
 *
 * @module
 */

import type { Listener, Transport } from "@x/shouty";
import { proxyProtocol, type ProxyProtocolOptions } from "@x/shouty/ops";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { type Faults, faulty } from "../faults.ts";

/** The header that a proxy sends for a client at 192.0.2.7. */
export const HEADER = "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n";
/** The address of a trusted proxy. */
export const PROXY: Deno.NetAddr = addr("10.0.0.1");
/** The address of a peer that is not trusted. */
export const OTHER: Deno.NetAddr = addr("127.0.0.1");

/** An address at port 7. */
export function addr(hostname: string): Deno.NetAddr {
  return { transport: "tcp", hostname, port: 7 };
}

/** The listener under the PROXY protocol; it records the calls that it gets. */
export class Below extends MemoryListener {
  asked = 0;
  readonly errors: Error[] = [];
  readonly kept: string[] = [];

  override async accept(): Promise<Transport> {
    this.asked++;
    const error = this.errors.shift();
    if (error !== undefined) throw error;
    const transport = await super.accept();
    const { kept } = this;
    return Object.assign(transport, { ref: () => kept.push("ref"), unref: () => kept.push("unref") });
  }

  ref(): void {
    this.kept.push("ref listener");
  }

  unref(): void {
    this.kept.push("unref listener");
  }
}

/** The parts of a test: both listeners, a clock, and the upper one's breaches of the contract of `Transport`. */
export interface Made {
  below: Below;
  clock: FakeClock;
  listener: Listener;
  misuse: string[];
}

/** Makes a listener with the PROXY protocol, and the listener under it. */
export function make(options: Partial<ProxyProtocolOptions> = {}, faults: Faults = {}): Made {
  const below = new Below();
  const clock = new FakeClock();
  const misuse: string[] = [];
  const listener = proxyProtocol(faulty(below, { misuse, ...faults }), { from: "10.0.0.1", clock, ...options });
  return { below, clock, listener, misuse };
}

/** Lets everything happen that needs no time to pass. */
export async function settle(clock: FakeClock): Promise<void> {
  await clock.advance(0);
}
