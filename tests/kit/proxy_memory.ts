/**
 * The PROXY protocol in memory, on a clock that stands still.
 *
 * @module
 */

import type { Listener, Transport } from "@x/shouty";
import { proxyProtocol, type ProxyProtocolOptions } from "@x/shouty/ops";
import { FakeClock, MemoryListener } from "@x/shouty/testing";
import { type Faults, faulty } from "./faults.ts";

/** A client at 192.0.2.7, as a proxy tells of it. */
export const HEADER = "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n";
/** Who is trusted. */
export const PROXY: Deno.NetAddr = addr("10.0.0.1");
/** Who is not. */
export const OTHER: Deno.NetAddr = addr("127.0.0.1");

/** An address at port 7. */
export function addr(hostname: string): Deno.NetAddr {
  return { transport: "tcp", hostname, port: 7 };
}

/** The listener below, which counts and keeps what it is asked. */
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

/** What there is in a test: listeners, a clock, and what the upper one did that a transport does not allow. */
export interface Made {
  below: Below;
  clock: FakeClock;
  listener: Listener;
  misuse: string[];
}

/** The listener above, and what is below. */
export function make(options: Partial<ProxyProtocolOptions> = {}, faults: Faults = {}): Made {
  const below = new Below();
  const clock = new FakeClock();
  const misuse: string[] = [];
  const listener = proxyProtocol(faulty(below, { misuse, ...faults }), { from: "10.0.0.1", clock, ...options });
  return { below, clock, listener, misuse };
}

/** Lets everything happen that can. */
export async function settle(clock: FakeClock): Promise<void> {
  await clock.advance(0);
}
