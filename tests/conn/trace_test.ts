/** Counts the calls between a connection's objects for one line, and compares them with those in CONTRIBUTING.md. */
import { assertEquals, assertLessOrEqual } from "@std/assert";
import { shout } from "@x/shouty";
import { FakeClock } from "@x/shouty/testing";
import { Connection } from "../../conn.ts";
import { ANSWER_BYTES, type BytesHandler } from "../../internal/api/handlers.ts";
import { Answers } from "../../internal/conn/answers.ts";
import { Blocks } from "../../internal/memory/blocks.ts";
import { Finishing } from "../../internal/io/finishing.ts";
import { Handle } from "../../internal/conn/handle.ts";
import { BlockWriter } from "../../internal/io/block_writer.ts";
import { Outbox } from "../../internal/io/outbox.ts";
import { Reader } from "../../internal/io/reader.ts";
import { InputBuffer } from "../../internal/lines/input_buffer.ts";
import { Limiter } from "../../internal/lines/limiter.ts";
import { LineCutter } from "../../internal/lines/line_cutter.ts";
import { Account, Budget } from "../../internal/memory/budget.ts";
import { Alarms } from "../../internal/time/alarms.ts";
import { ConnectionClocks } from "../../internal/time/conn_clocks.ts";
import { PeerClocks } from "../../internal/time/peer_clocks.ts";
import { Pace } from "../../internal/io/pace.ts";
import { End } from "../../testing/pipe.ts";
import { test } from "../kit/bounded.ts";
import { inMemory, startServer } from "../kit/server.ts";

const CLASSES = { Connection, Reader, Answers, Outbox, Blocks, Finishing, Handle, Limiter, Account, Budget };
const OTHERS = { Alarms, ConnectionClocks, InputBuffer, LineCutter, Pace };

type Method = (this: unknown, ...args: unknown[]) => unknown;

/** Records each call of a method that comes from another object, until it is disposed of. */
class Trace implements Disposable {
  readonly calls: string[] = [];
  readonly #restore: (() => void)[] = [];
  /** The objects whose methods are running, innermost last. */
  readonly #stack: unknown[] = [];

  constructor() {
    for (const [name, { prototype }] of Object.entries({ ...CLASSES, ...OTHERS })) this.#patch(name, prototype);
    this.#patch("Outbox", BlockWriter.prototype);
    this.#patch("ConnectionClocks", PeerClocks.prototype);
    this.#patch("transport", End.prototype, ["read", "write"]);
    this.#patch("clock", FakeClock.prototype, ["now"]);
  }

  note(call: string): void {
    this.calls.push(call);
  }

  [Symbol.dispose](): void {
    for (const restore of this.#restore) restore();
  }

  #patch(name: string, prototype: object, only?: string[]): void {
    for (const [key, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
      const method = descriptor.value as Method | undefined;
      if (typeof method !== "function" || key === "constructor" || only && !only.includes(key)) continue;
      const [calls, stack] = [this.calls, this.#stack];
      const traced: Method = function (...args) {
        if (stack.at(-1) !== this && !calledBy(this)) calls.push(`${name}.${key}`);
        stack.push(this);
        try {
          return method.apply(this, args);
        } finally {
          stack.pop();
        }
      };
      Object.defineProperty(prototype, key, { ...descriptor, value: traced });
      this.#restore.push(() => Object.defineProperty(prototype, key, descriptor));
    }
  }
}

/** Whether an object calls itself, from an async function that goes on: nothing is on the stack of the trace then. */
function calledBy(object: unknown): boolean {
  const [, , , caller = ""] = new Error().stack!.split("\n");
  return caller.includes(` ${(object as object).constructor.name}.`);
}

/** The calls for one line that comes alone, between two waits for the peer. */
async function traceLine(): Promise<string[]> {
  const { listener, clock } = inMemory();
  using trace = new Trace();
  const answerBytes = (lines: Uint8Array) => (trace.note("handler"), (shout as BytesHandler)[ANSWER_BYTES]!(lines));
  await using t = startServer(
    { listener, clock },
    Object.assign(shout.bind(null), { block: shout.block, [ANSWER_BYTES]: answerBytes }),
  );
  const client = await t.admitted();
  for (const line of ["first\n", "second\n"]) {
    await client.write(line);
    await client.readLine();
    await clock.advance(0);
  }
  const from = trace.calls.lastIndexOf("InputBuffer.added", trace.calls.lastIndexOf("handler"));
  const to = trace.calls.lastIndexOf("ConnectionClocks.wait");
  return trace.calls.slice(from, trace.calls.indexOf("clock.now", to) + 1);
}

test("one line takes at most 20 calls between objects, which CONTRIBUTING.md shows in their order", async () => {
  // The test's own client reads and writes, too.
  const calls = (await traceLine()).filter((call, at, all) =>
    !(call === "transport.read" && all[at - 1] !== "InputBuffer.space")
  );
  assertLessOrEqual(calls.length, 20, calls.join("\n"));
  const text = await Deno.readTextFile(new URL("../../CONTRIBUTING.md", import.meta.url));
  const [, picture] = /## One line, call by call\n[^]*?```text\n([^]*?)```/.exec(text) ?? [];
  const shown = [...(picture ?? "").matchAll(/^ *(\w+(?:\.\w+)?)\b/gm)].map(([, call]) => call);
  assertEquals(shown, calls);
});
