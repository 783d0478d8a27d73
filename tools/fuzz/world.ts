/**
 * Runs a case: a server, its clients, and the steps.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { FakeClock, MemoryListener, type TestClient } from "@x/shouty/testing";
import { HELLO, scramble } from "../../tests/kit/fakes/fake_tls.ts";
import { type Faults, faulty } from "../../tests/kit/faults.ts";
import { bytesOf } from "../../tests/kit/bytes.ts";
import { framingOf } from "../../tests/kit/property.ts";
import { TestServer } from "../../tests/kit/server.ts";
import { startHandler } from "./scenario/handlers.ts";
import { Flushes } from "./scenario/flushes.ts";
import type { Action, FaultPlan, Scenario, Step } from "./scenario/scenario.ts";
import { BROADCAST } from "./verdict/rules.ts";
import type { Log } from "./scenario/follow.ts";
import type { Entry } from "./scenario/script.ts";
import { checkClient, checkConnections, type ClientEnd } from "./verdict/verdict.ts";
import { Watch } from "./scenario/watched.ts";

const ADDRESSES = ["127.0.0.1", "10.0.0.1", "2001:db8::1", "2001:db8::2", "::ffff:127.0.0.1"];

/** Maximum seconds on the clock until all connections have to end; no rate limit or queue of a case takes as long. */
const MAX_SECONDS = 10_000;
const LAST_DRAIN_MS = 77;

/** Errors of unhandled rejections; all cases of the process share it. */
const strays: unknown[] = [];
globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  strays.push(event.reason);
});

/**
 * Runs a case to its end.
 *
 * @throws {AssertionError} If the server did not behave as the oracle says.
 */
export async function play(scenario: Scenario): Promise<void> {
  const chance = Math.random;
  Math.random = () => scenario.luck;
  try {
    await new World(scenario).live();
    assertEquals(strays.splice(0), [], "Unhandled rejections");
  } finally {
    Math.random = chance;
  }
}

class World {
  readonly #scenario: Scenario;
  readonly #clock = new FakeClock();
  readonly #memory: MemoryListener;
  readonly #watch: Watch;
  readonly #t: TestServer;
  readonly #clients: Client[] = [];
  readonly #logs = new Map<Deno.Addr, Entry[]>();
  readonly #flushes: Flushes;
  /** The time at which the server has to be closed at the latest, and the time at which it was. */
  #deadline = Infinity;
  #closedAt: number | undefined;
  /** Resolving it continues the slow handlers. */
  #tick = Promise.withResolvers<void>();

  constructor(scenario: Scenario) {
    this.#scenario = scenario;
    this.#memory = new MemoryListener({ bufferBytes: scenario.bufferBytes });
    this.#watch = new Watch(scenario.options.maxBufferedBytes);
    this.#flushes = new Flushes(!isJoined(scenario));
    const listener = this.#watch.over(faulty(this.#memory, faultsOf(scenario.faults)));
    const start = startHandler(scenario, () => this.#tick.promise, (conn) => this.#log(conn.remoteAddr));
    const framing = framingOf(scenario.options.framing ?? {});
    this.#t = new TestServer(start, { ...scenario.options, framing, listener, clock: this.#clock });
  }

  /** Makes the list of what the script of a connection gets. */
  #log(addr: Deno.Addr): Log {
    const entries: Entry[] = [];
    this.#logs.set(addr, entries);
    const wire = this.#watch.transports.find(({ remoteAddr }) => remoteAddr === addr)!;
    return { entries, wire, flushes: this.#flushes };
  }

  async live(): Promise<void> {
    for (const step of this.#scenario.steps) await this.#take(step);
    await this.#end();
    this.#t.server.shutdown({ drainTimeout: LAST_DRAIN_MS });
    await this.#clock.advance(LAST_DRAIN_MS);
    assertEquals(this.#t.server.state, "closed", "A shutdown is over at its deadline");
    assertEquals(this.#clock.pending, 0, "Timers are left");
    this.#judge();
    await this.#t[Symbol.asyncDispose]();
  }

  async #take({ action, microtasks }: Step): Promise<void> {
    await this.#act(action);
    if (microtasks === null) await this.#clock.advance(0);
    else for (let i = 0; i < microtasks; i++) await undefined;
    const late = this.#closedAt === undefined && this.#clock.now() > this.#deadline;
    assert(!late, `A shutdown that had to be over at ${this.#deadline} is not`);
  }

  async #act(action: Action): Promise<void> {
    switch (action.do) {
      case "connect":
        return this.#connect(ADDRESSES[action.from], action.reads);
      case "advance":
        this.#tick.resolve();
        this.#tick = Promise.withResolvers();
        return await this.#clock.advance(action.ms);
      case "turn":
        return await new Promise((resolve) => setTimeout(resolve, 0));
      case "shutdown":
        return this.#shutdown(action);
      case "broadcast":
        return void this.#t.server.broadcast(BROADCAST);
      default:
        this.#clients[action.client]?.act(action);
    }
  }

  #connect(hostname: string, reads: boolean): void {
    if (this.#t.server.state !== "listening") return;
    const addr: Deno.NetAddr = { transport: "tcp", hostname, port: 50_000 + this.#clients.length };
    this.#clients.push(new Client(this.#memory.connect(addr), reads));
  }

  #shutdown({ drain, drainTimeout }: Extract<Action, { do: "shutdown" }>): void {
    this.#deadline = Math.min(this.#deadline, this.#clock.now() + drainTimeout);
    this.#t.server.shutdown({ drain, drainTimeout }).then(() => this.#closedAt = this.#clock.now());
  }

  /**
   * Each connection has to end: by a limit if its client does nothing more, as in some cases; at the latest once its client
   * has read everything and ended its side.
   */
  async #end(): Promise<void> {
    if (isStill(this.#scenario)) await this.#allEnd("A connection does not end although its client does nothing");
    for (const client of this.#clients) client.finish();
    await this.#allEnd("A connection does not end although its client has");
  }

  async #allEnd(complaint: string): Promise<void> {
    // Connections may not be accepted yet, so no active connection means nothing before this.
    const least = this.#scenario.options.acceptRate === undefined ? 3 : 30;
    for (let second = 0; second < MAX_SECONDS; second++) {
      if (second >= least && this.#t.stats.active === 0) break;
      this.#tick.resolve();
      await this.#clock.advance(1000);
    }
    assertEquals(this.#t.stats.active, 0, complaint);
  }

  #judge(): void {
    const { transports, complaints } = this.#watch;
    assertEquals(complaints, [], "The rules of a transport");
    assertEquals([this.#flushes.complaints, this.#flushes.pending], [[], 0], "The flushes");
    assertEquals(transports.filter(({ closes }) => closes !== 1), [], "Each transport is closed once");
    checkConnections(this.#scenario, this.#t.events, transports, this.#logs);
    for (const client of this.#clients) {
      const transport = transports.find(({ remoteAddr }) => remoteAddr === client.addr);
      const closed = this.#t.all("closed").find(({ conn }) => conn.remoteAddr === client.addr);
      if (transport !== undefined) checkClient(this.#scenario, client, transport, closed);
    }
  }
}

/** A client that does its writes one after the other, and keeps what it receives. */
class Client implements ClientEnd {
  readonly #test: TestClient;
  #writing = Promise.resolve();
  reading: boolean;
  /** The number of bytes of the hello that have been sent; behind all of them, everything is hidden. */
  #helloBytes = 0;
  gone = false;
  lost = false;
  readonly received: Uint8Array[] = [];
  readonly addr: Deno.Addr;
  readonly eager: boolean;

  constructor(test: TestClient, eager: boolean) {
    this.#test = test;
    this.addr = test.addr;
    this.eager = eager;
    this.reading = eager;
    if (eager) this.#read();
  }

  act(action: Extract<Action, { client: number }>): void {
    if (this.gone) return;
    if (action.do === "write") this.#write(this.#hide(action.text));
    else if (action.do === "hello") this.#hello(action);
    else if (action.do === "end") this.#then(() => this.#test.closeWrite());
    else if (action.do === "read") this.#startReading();
    else {
      this.gone = true;
      this.#test[action.do]();
    }
  }

  #hello({ bytes, before, behind }: Extract<Action, { do: "hello" }>): void {
    const first = this.#hide(before);
    const hello = HELLO.subarray(this.#helloBytes, this.#helloBytes + bytes);
    this.#helloBytes += hello.length;
    this.#write(Uint8Array.of(...first, ...hello, ...this.#hide(behind)));
  }

  #hide(text: string): Uint8Array {
    const bytes = bytesOf(text);
    return this.#helloBytes === HELLO.length ? scramble(bytes) : bytes;
  }

  #write(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#then(() => this.#test.write(bytes));
  }

  finish(): void {
    if (this.gone) return;
    this.#startReading();
    this.#then(() => this.#test.closeWrite());
  }

  #startReading(): void {
    if (this.reading) return;
    this.reading = true;
    this.#read();
  }

  async #read(): Promise<void> {
    try {
      for (let bytes; (bytes = await this.#test.read()) !== null;) this.received.push(bytes);
    } catch {
      this.lost = true;
    }
  }

  #then(write: () => Promise<void>): void {
    // The server may close the connection before it has read everything.
    this.#writing = this.#writing.then(write).catch(() => {});
  }
}

/** Whether the clients do nothing more at the end of a case. With such a clock switched off, they might do so for ever. */
function isStill({ still, options, script }: Scenario): boolean {
  const { idleTimeout, writeTimeout } = options;
  const isBounded = idleTimeout !== Infinity && writeTimeout !== Infinity;
  return still === true && isBounded && !JSON.stringify(script ?? {}).includes("null");
}

/** Whether a connection may get more to write than its handler writes: broadcasts, or error lines for long lines. */
function isJoined({ steps, script, options }: Scenario): boolean {
  return steps.some(({ action }) => action.do === "broadcast") || /discard/.test(JSON.stringify([script, options]));
}

function faultsOf({ accepts, readBytes, writeBytes, fail }: FaultPlan): Faults {
  return {
    accepts: accepts.map((kind) =>
      kind === "EMFILE" ? Object.assign(new Error(kind), { code: kind }) : new Deno.errors.NotConnected(kind)
    ),
    readBytes: (call) => readBytes[call - 1] ?? Infinity,
    writeBytes: (call) => writeBytes[call - 1] ?? Infinity,
    fail: (method, call) => fail?.method === method && fail.call === call ? errorOf(fail.error) : undefined,
  };
}

function errorOf(kind: NonNullable<FaultPlan["fail"]>["error"]): unknown {
  if (kind === "string") return "boom";
  return kind === "Error" ? new Error("boom") : new Deno.errors[kind]("boom");
}
