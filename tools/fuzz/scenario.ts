/**
 * The cases for whole connections. A case is plain data, so that a failing one can be kept as JSON.
 *
 * @module
 */

import type { ServeOptions } from "@x/shouty";
import { anyFraming, DELIMITERS, fc, type PlainFraming } from "../../tests/kit/property.ts";
import { anyScript, type Script } from "./script.ts";

/** What one step does. Each character of a text is one byte. */
export type Action =
  | { do: "connect"; from: number; reads: boolean }
  | { do: "write"; client: number; text: string }
  | { do: "end" | "reset" | "close" | "read"; client: number }
  | { do: "advance"; ms: number }
  | { do: "turn" }
  | { do: "shutdown"; drain: "linger" | "finish"; drainTimeout: number };

/** An action, and how many microtasks run after it; `null` runs everything that is ready. */
export interface Step {
  action: Action;
  microtasks: number | null;
}

/** The kinds of handlers. */
export const HANDLERS = [
  "shout",
  "block",
  "bytes",
  "line",
  "async line",
  "slow line",
  "throwing line",
  "rejecting line",
  "closing line",
  "conversation",
  "impatient conversation",
  "quitting conversation",
  "throwing conversation",
  "script",
] as const;

/** See {@linkcode HANDLERS}. */
export type HandlerKind = typeof HANDLERS[number];

/** What a failing call of a transport throws. */
export const ERRORS = ["ConnectionReset", "BrokenPipe", "Error", "string"] as const;

/** Faults of the listener and its transports. Calls are counted from 1 in each connection. */
export interface FaultPlan {
  accepts: ("NotConnected" | "EMFILE")[];
  readBytes: number[];
  writeBytes: number[];
  fail: { method: "read" | "write" | "closeWrite"; call: number; error: typeof ERRORS[number] } | null;
}

/** One case. */
export interface Scenario {
  handler: HandlerKind;
  /** What the handler "script" reads. */
  script?: Script;
  options: Pick<ServeOptions, OptionName> & { framing?: PlainFraming };
  /** The result of `Math.random` during the case. */
  luck: number;
  bufferBytes: number;
  faults: FaultPlan;
  steps: Step[];
}

type OptionName =
  | ("firstLineTimeout" | "idleTimeout" | "lineTimeout" | "writeTimeout" | "drainTimeout" | "maxAge")
  | ("maxLines" | "maxLinesPerSecond" | "maxBytesPerSecond" | "maxLineBytes" | "maxConnectionBytes")
  | ("maxQueuedBytes" | "maxConnections" | "maxConnectionsPerIp" | "maxBufferedBytes" | "answerMisdirected")
  | ("atCapacity" | "acceptRate" | "acceptRatePerIp" | "deny" | "drain" | "minBytesPerSecond" | "idleOn");

const timeout = fc.oneof(fc.constantFrom(1, 50, 500, Infinity), fc.integer({ min: 1, max: 3000 }));

const OPTIONS: { readonly [Name in OptionName]: fc.Arbitrary<Scenario["options"][Name]> } = {
  firstLineTimeout: timeout,
  idleTimeout: timeout,
  lineTimeout: timeout,
  writeTimeout: timeout,
  maxAge: timeout,
  maxLines: fc.integer({ min: 1, max: 8 }),
  maxLinesPerSecond: fc.constantFrom(0.5, 1, 3, 20),
  maxBytesPerSecond: fc.constantFrom(100, 700, 5000),
  answerMisdirected: fc.boolean(),
  maxLineBytes: fc.constantFrom(1, 2, 5, 12, 255, 256, 257, 700, 70_000),
  maxConnectionBytes: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(600, 3000)),
  maxQueuedBytes: fc.constantFrom(1, 20, 1000),
  maxConnections: fc.integer({ min: 1, max: 3 }),
  atCapacity: fc.constantFrom("reject", "wait"),
  maxConnectionsPerIp: fc.integer({ min: 1, max: 2 }),
  acceptRate: fc.constantFrom(0.5, 1, 10),
  acceptRatePerIp: fc.constantFrom(0.5, 1, 3),
  maxBufferedBytes: fc.constantFrom(1, 4000, 20_000, 140_000),
  deny: fc.constant(["10.0.0.0/8"]),
  drain: fc.constantFrom("linger", "finish"),
  drainTimeout: fc.constantFrom(1, 100, 2500),
  minBytesPerSecond: fc.constantFrom(0, 1, 240, 100_000),
  idleOn: fc.constantFrom("both", "read"),
};

/** Up to five options: with more of them, one hides the effects of another. */
const someOptions = fc.tuple(fc.record(OPTIONS), fc.subarray(Object.keys(OPTIONS) as OptionName[], { maxLength: 5 }))
  .map(([options, names]) => Object.fromEntries(names.map((name) => [name, options[name]])) as Scenario["options"]);

/** Text made of lines and parts of lines. */
const anyText: fc.Arbitrary<string> = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.constantFrom("\n", "\r\n", "\r", "a\n", "bc\r\n", "!\n", "\n\n\n", "hello\n") },
    {
      weight: 3,
      arbitrary: fc.constantFrom("a", "\r", "xyz", "\xc3\x9f", "\xc3", "\xff", "\0", "\xef\xbb\xbf", "\x85"),
    },
    { weight: 2, arbitrary: fc.constantFrom(...DELIMITERS, "|", "ab", "aaab") },
    { weight: 1, arbitrary: fc.constantFrom("GET / HTTP/1.1\r\n", "\x16\x03\x01", "\x16\x03", "PROXY UNKNOWN\r\n") },
    {
      weight: 1,
      arbitrary: fc.constantFrom(253, 254, 255, 256, 257, 1020, 4090, 4094, 4095, 4096, 40_000).map((length) =>
        "y".repeat(length)
      ),
    },
    { weight: 1, arbitrary: fc.constantFrom(20, 400).map((count) => "z\n".repeat(count)) },
  ),
  { minLength: 1, maxLength: 5 },
).map((parts) => parts.join(""));

const client = fc.nat(3);

const anyAction: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("connect" as const), from: fc.nat(4), reads: fc.boolean() }),
  },
  { weight: 8, arbitrary: fc.record({ do: fc.constant("write" as const), client, text: anyText }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom("end", "reset", "close", "read"), client }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("advance" as const), ms: fc.constantFrom(1, 49, 50, 500, 2000, 3100) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("shutdown" as const),
      drain: fc.constantFrom("linger", "linger", "finish"),
      drainTimeout: fc.constantFrom(1, 60, 2500),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: "turn" as const }) },
);

const anyStep: fc.Arbitrary<Step> = fc.record({
  action: anyAction,
  microtasks: fc.oneof(fc.constant(null), fc.nat(8)),
});

const anyPlan: fc.Arbitrary<FaultPlan> = fc.record({
  accepts: fc.array(fc.constantFrom("NotConnected", "EMFILE"), { maxLength: 2 }),
  readBytes: fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 8 }),
  writeBytes: fc.array(fc.nat(9), { maxLength: 4 }),
  fail: fc.option(fc.record({
    method: fc.constantFrom("read", "write", "closeWrite"),
    call: fc.integer({ min: 1, max: 4 }),
    error: fc.constantFrom(...ERRORS),
  })),
});

const NO_FAULTS: FaultPlan = { accepts: [], readBytes: [], writeBytes: [], fail: null };

const firstStep: fc.Arbitrary<Step> = anyStep.map((step) => ({
  ...step,
  action: { do: "connect", from: 0, reads: true },
}));

const anyHandler: fc.Arbitrary<Pick<Scenario, "handler" | "script">> = fc.oneof(
  { weight: 2, arbitrary: fc.constantFrom(...HANDLERS.slice(0, -1)).map((handler) => ({ handler })) },
  { weight: 1, arbitrary: anyScript.map((script) => ({ handler: "script" as const, script })) },
);

const anyOptions: fc.Arbitrary<Scenario["options"]> = fc.tuple(someOptions, fc.option(anyFraming)).map((
  [options, framing],
) => framing === null ? options : { ...options, framing });

/** Any case. */
export const anyScenario: fc.Arbitrary<Scenario> = fc.record({
  handler: anyHandler,
  options: anyOptions,
  luck: fc.constantFrom(0, 0.5, 0.999),
  bufferBytes: fc.constantFrom(1, 7, 100, 65_536, 65_536),
  faults: fc.oneof(fc.constant(NO_FAULTS), anyPlan),
  steps: fc.tuple(firstStep, fc.array(anyStep, { minLength: 1, maxLength: 14 })).map((
    [first, rest],
  ) => [first, ...rest]),
}).map(({ handler, ...scenario }) => ({ ...handler, ...scenario }))
  .map((scenario) => isLong(scenario.steps) ? { ...scenario, bufferBytes: 65_536 } : scenario);

/** Whether a case has much text, which gets the largest pipe: through a small one it takes long and finds nothing new. */
function isLong(steps: Step[]): boolean {
  const lengths = steps.map(({ action }) => action.do === "write" ? action.text.length : 0);
  return lengths.reduce((sum, length) => sum + length, 0) > 2000;
}

/** Writes a case as JSON, which has `null` in place of `Infinity`. */
export function toJson(scenario: Scenario): string {
  return JSON.stringify(scenario);
}

/** Reads what {@linkcode toJson} wrote. */
export function fromJson(text: string): Scenario {
  // No case has `null` for a time but in place of `Infinity`.
  return JSON.parse(
    text,
    (name, value) => value === null && /Timeout$|^timeout$|^maxAge$/.test(name) ? Infinity : value,
  );
}
